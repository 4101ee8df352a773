"""The schema: migrations in their order are config/schema.sql, and a database that isn't ours is refused."""

import asyncio

import asyncpg
import pytest

from config.database import Database, MigrationError, migrate, migrations, up_to_date
from config.schema import schema, shipped

# What a schema is, without the names and numbers that differ between two databases.
CATALOG = """
SELECT 'column' AS kind, c.relname AS relation, a.attname AS name,
       concat_ws(' ', format_type(a.atttypid, a.atttypmod), a.attnotnull, a.attstorage, a.attidentity, a.attnum,
                 pg_get_expr(d.adbin, d.adrelid)) AS definition
  FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace
  LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
 WHERE n.nspname = 'public' AND a.attnum > 0 AND NOT a.attisdropped
UNION ALL
SELECT 'relation', c.relname, c.relkind::text, concat_ws(' ', c.reloptions::text, c.relpersistence, am.amname)
  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace LEFT JOIN pg_am am ON am.oid = c.relam
 WHERE n.nspname = 'public'
UNION ALL
SELECT 'constraint', conrelid::regclass::text, conname, pg_get_constraintdef(k.oid)
  FROM pg_constraint k JOIN pg_namespace n ON n.oid = k.connamespace WHERE n.nspname = 'public'
UNION ALL
SELECT 'index', tablename, indexname, indexdef FROM pg_indexes WHERE schemaname = 'public'
UNION ALL
SELECT 'function', '', p.proname, pg_get_functiondef(p.oid)
  FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace WHERE n.nspname = 'public' AND p.prokind IN ('f', 'p')
UNION ALL
SELECT 'trigger', tgrelid::regclass::text, tgname, pg_get_triggerdef(oid) FROM pg_trigger WHERE NOT tgisinternal
ORDER BY 1, 2, 3
"""


# The beginnings of the digests of migrations that databases have been made with. A change to one of them would keep
# every such database from starting: what is wrong in it is put right by a later one. A release adds its own here.
FROZEN = [
    "741ce4cc4635c246",  # 0001_accounts_and_queue
    "39f471bc6e531761",  # 0002_suppression
    "39cccac062dec290",  # 0003_bounce_counts
    "a263ff80af054683",  # 0004_events
    "ad9934f062e3a880",  # 0005_orders
    "7c6264e43a78f03d",  # 0006_trace
    "75fca00467281e70",  # 0007_groups_and_consent
    "c7546bf64f00790b",  # 0008_replies
    "4663b0db068f159a",  # 0009_lists_stay
]


def test_a_migration_that_was_shipped_is_never_changed() -> None:
    assert [step.sha256[:16] for step in migrations()][: len(FROZEN)] == FROZEN


async def catalog(url: str) -> list[tuple[str, ...]]:
    connection = await asyncpg.connect(url)
    try:
        rows = await connection.fetch(CATALOG)
    finally:
        await connection.close()
    return [tuple(row) for row in rows if row["relation"] not in ("migration", "migration_pkey")]


async def execute(url: str, sql: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(sql)
    finally:
        await connection.close()


def test_the_shipped_schema_is_written_from_the_migrations() -> None:
    assert shipped() == schema(), "run: python -m config.schema"


async def test_migrations_in_their_order_make_the_schema(database_url: str, empty_database_url: str) -> None:
    await execute(empty_database_url, shipped())
    made = await catalog(empty_database_url)
    assert any(row[:2] == ("relation", "recipient") for row in made)
    assert await catalog(database_url) == made


async def test_a_second_run_applies_nothing(empty_database_url: str) -> None:
    assert await migrate(empty_database_url) == [f"{step.number:04}_{step.name}" for step in migrations()]
    assert await migrate(empty_database_url) == []


async def test_only_this_version_s_schema_is_up_to_date(empty_database_url: str) -> None:
    database = await Database.open(empty_database_url, size=1, application_name="test", prepares=False)
    try:
        assert not await up_to_date(database)
        await migrate(empty_database_url)
        assert await up_to_date(database)
        await database.pool.execute("UPDATE migration SET sha256 = '' WHERE number = 2")
        assert not await up_to_date(database)
    finally:
        await database.close()


async def test_nodes_that_start_together_migrate_once(empty_database_url: str) -> None:
    applied = await asyncio.gather(*(migrate(empty_database_url) for _ in range(4)))
    assert sorted(name for names in applied for name in names) == [
        f"{step.number:04}_{step.name}" for step in migrations()
    ]


async def test_a_migration_that_fails_leaves_the_database_as_it_was(
    empty_database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = migrations()[0]
    monkeypatch.setattr("config.database.migrations", lambda: [first._replace(sql=first.sql + "; SELECT nonsense")])
    with pytest.raises(asyncpg.UndefinedColumnError):
        await migrate(empty_database_url)
    assert await catalog(empty_database_url) == []


async def test_a_changed_migration_is_refused(database_url: str) -> None:
    await execute(database_url, "UPDATE migration SET sha256 = 'other' WHERE number = 1")
    with pytest.raises(MigrationError, match="0001_accounts_and_queue is not the one"):
        await migrate(database_url)


async def test_a_newer_database_is_refused(database_url: str) -> None:
    await execute(database_url, "INSERT INTO migration (number, name, sha256) VALUES (9999, 'future', 'x')")
    with pytest.raises(MigrationError, match="9999_future, which is newer than this version"):
        await migrate(database_url)
