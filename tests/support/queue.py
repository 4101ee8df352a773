"""Rows of the queue as tests of what happens to them need them: no content that can be opened, any number, at once."""

from typing import Final

from config.database import Database

LIFETIME_SECONDS: Final = 86_400.0


async def names(database: Database, tenant: str, campaign: str, list_name: str = "news") -> tuple[int, int, int]:
    """Ids of a tenant, a list and a campaign, made where they are new; the campaign's key opens nothing."""
    pool = database.pool
    await pool.execute("INSERT INTO tenant (name) VALUES ($1) ON CONFLICT DO NOTHING", tenant)
    tenant_id = await pool.fetchval("SELECT id FROM tenant WHERE name = $1", tenant)
    for table, name in (("list", list_name), ("campaign", campaign)):
        key = ", content_key" if table == "campaign" else ""
        value = ", ''" if table == "campaign" else ""
        await pool.execute(
            f"INSERT INTO {table} (tenant_id, name{key}) VALUES ($1, $2{value}) ON CONFLICT DO NOTHING", tenant_id, name
        )
    list_id = await pool.fetchval("SELECT id FROM list WHERE tenant_id = $1 AND name = $2", tenant_id, list_name)
    campaign_id = await pool.fetchval("SELECT id FROM campaign WHERE tenant_id = $1 AND name = $2", tenant_id, campaign)
    return tenant_id, list_id, campaign_id


async def fill(
    database: Database,
    ids: tuple[int, int, int],
    messages: int,
    *,
    first: int = 1,
    recipients: int = 1,
    state: int = 0,
    site: str | None = None,
    due_seconds: float = 0.0,
    lifetime_seconds: float = LIFETIME_SECONDS,
    timeout: float = 300.0,
) -> None:
    """Messages of so many recipients each, all in one state; due and expiry from now on."""
    await database.pool.execute(
        "INSERT INTO message (lane, id, tenant_id, list_id, campaign_id, class, received_at, expires_at, envelope,"
        " content) SELECT n % 16, n, $3, $4, $5, 0, now(), now() + make_interval(secs => $6), '',"
        " repeat('x', 200)::bytea FROM generate_series($1::bigint, $1::bigint + $2 - 1) AS n",
        first, messages, *ids, lifetime_seconds, timeout=timeout,
    )  # fmt: skip
    await database.pool.execute(
        "INSERT INTO recipient (lane, message_id, ordinal, state, class, due_at, expires_at, person, address, site)"
        " SELECT n % 16, n, o, $4, 0, now() + make_interval(secs => $5), now() + make_interval(secs => $6),"
        " n * 1000 + o, repeat('a', 60)::bytea, $7"
        " FROM generate_series($1::bigint, $1::bigint + $2 - 1) AS n, generate_series(0, $3 - 1) AS o",
        first, messages, recipients, state, due_seconds, lifetime_seconds, site, timeout=timeout,
    )  # fmt: skip


async def states(database: Database) -> dict[tuple[int, int], int]:
    """How many recipients there are by campaign and state."""
    rows = await database.pool.fetch(
        "SELECT m.campaign_id, r.state, count(*) FROM recipient r"
        " JOIN message m ON m.lane = r.lane AND m.id = r.message_id GROUP BY 1, 2"
    )
    return {(row[0], row[1]): row[2] for row in rows}
