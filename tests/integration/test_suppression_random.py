"""Random interleavings over two workers: whatever happens in between, log, state in force and every index agree."""

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from config.database import Database, DatabaseUnavailable
from suppression import index as index_module
from suppression import keeper as keeper_module
from suppression.base import Base
from suppression.consent import Consent, Consents
from suppression.digest import Effect, Kind, Scope, effect_of
from suppression.entry import Action, Channel, NewEntry
from suppression.index import Index
from suppression.keeper import BaseKeeper
from suppression.log import SuppressionLog
from suppression.plan import Lift
from suppression.scopes import Scopes
from suppression.verify import verify_log
from suppression.watch import Watch
from tests.integration.test_suppression_watch import feed_of, until
from tests.support.suppressions import DIGEST, opened

PERSONS, TENANTS, LISTS = range(1, 9), (1, 2), (1, 2)
STEPS = 120


@pytest.fixture
async def databases(database_url: str) -> AsyncIterator[list[Database]]:
    async with opened(database_url) as one, opened(database_url) as other:
        yield [one, other]


class World:
    """Two workers of one node, and dice."""

    def __init__(self, databases: list[Database], directory: Path, seed: int) -> None:
        self.dice = random.Random(seed)
        self.databases = databases
        self.directory = directory
        self.logs = [SuppressionLog(database, DIGEST) for database in databases]
        self.watches: list[Watch] = []

    def watch(self, number: int) -> Watch:
        keeper = BaseKeeper(self.directory / "suppression.index", self.logs[number])
        return Watch(Index(), feed_of(self.databases[number]), keeper, Scopes(DIGEST), poll_seconds=0.05)

    async def start(self) -> None:
        self.watches = [self.watch(0), self.watch(1)]
        for watch in self.watches:
            await watch.start()

    async def stop(self) -> None:
        for watch in self.watches:
            await watch.stop()

    def whom(self) -> tuple[int, Scope, int, int]:
        scope = self.dice.choice([Scope.EVERYTHING, Scope.TENANT, Scope.LIST, Scope.LIST])
        return self.dice.choice(PERSONS), scope, self.dice.choice(TENANTS), self.dice.choice(LISTS)

    async def suppress(self) -> None:
        log = self.dice.choice(self.logs)
        entries = [self.new_entry() for _ in range(self.dice.randint(1, 4))]
        await asyncio.gather(log.append(entries), self.dice.choice(self.logs).append(entries[:1]))

    def new_entry(self) -> NewEntry:
        person, scope, tenant, listed = self.whom()
        return NewEntry(person, scope, self.dice.choice(list(Kind)), tenant, listed, Channel.API, "dice")

    async def lift(self) -> None:
        person, scope, tenant, listed = self.whom()
        kinds = frozenset(self.dice.sample(list(Kind), 2))
        lift = Lift(person, scope, kinds, tenant, listed, Channel.CLI, "dice", "chance")
        async with self.dice.choice(self.logs).appending() as appending:
            await appending.lift([lift], Action.LIFT_BY_OPERATOR)

    async def consent(self) -> None:
        number = self.dice.randrange(2)
        person, scope, tenant, listed = self.whom()
        consents = Consents(self.databases[number], self.logs[number])
        await consents.record([Consent(person, scope, tenant, listed, "chance", "dice", "dice")])

    async def roll_back(self) -> None:
        """A transaction that fails after it has written."""
        with pytest.raises(RuntimeError):
            async with self.dice.choice(self.logs).appending() as appending:
                await appending.suppress([self.new_entry()])
                raise RuntimeError

    async def kill_a_connection(self) -> None:
        await self.databases[0].pool.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database()"
            " AND pid <> pg_backend_pid() ORDER BY random() LIMIT 1"
        )

    async def restart_a_worker(self) -> None:
        number = self.dice.randrange(2)
        await self.watches[number].stop()
        self.watches[number] = self.watch(number)
        await self.watches[number].start()

    async def damage_the_file(self) -> None:
        """As a new file: a mapped one that is cut short in its place ends the process (SIGBUS), which is closed too."""
        damaged = self.directory / "damaged"
        damaged.write_bytes(self.dice.randbytes(self.dice.choice([0, 100, 5000])))
        damaged.replace(self.directory / "suppression.index")

    async def wait_a_little(self) -> None:
        await asyncio.sleep(self.dice.random() * 0.02)

    async def step(self) -> None:
        chances: list[tuple[int, Callable[[], Awaitable[None]]]] = [
            (12, self.suppress), (6, self.lift), (4, self.consent), (2, self.roll_back), (1, self.kill_a_connection),
            (2, self.restart_a_worker), (1, self.damage_the_file), (4, self.wait_a_little),
        ]  # fmt: skip
        weights, actions = zip(*chances, strict=True)
        try:
            await self.dice.choices(actions, weights)[0]()
        except DatabaseUnavailable:
            return  # the killed connection was in use: what was asked may or may not have been done


async def settled(world: World) -> int:
    """The head, once every worker is there."""
    while True:
        try:
            head, _ = await world.logs[0].head()
            break
        except DatabaseUnavailable:
            continue
    await until(lambda: all(watch.fresh() and watch.index.position == head for watch in world.watches))
    return head


@pytest.mark.parametrize("seed", range(6))
async def test_everything_agrees_in_the_end(
    databases: list[Database], tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index_module, "MIN_DELTA_ENTRIES", 10)
    monkeypatch.setattr(index_module, "_PRUNE_AT_ONCE", 3)
    monkeypatch.setattr(keeper_module, "REST_FACTOR", 0.0)
    monkeypatch.setattr(keeper_module, "RETRY_SECONDS", 0.0)
    monkeypatch.setattr(keeper_module, "REPLAY_AT_MOST", 40)
    world = World(databases, tmp_path, seed)
    await world.start()
    for _ in range(STEPS):
        await world.step()
    head = await settled(world)
    log = world.logs[0]
    entries = await log.read_after(0, head)
    assert [entry.position for entry in entries] == list(range(1, head + 1))
    assert (await verify_log(log, DIGEST)).intact
    in_force = {}
    for entry in entries:
        if entry.action is Action.SUPPRESS:
            assert (entry.key, entry.kind) not in in_force
            in_force[entry.key, entry.kind] = entry
        else:
            del in_force[entry.key, entry.kind]
        kinds = [other for (key, _), other in in_force.items() if key == entry.key]
        strongest = max((effect_of(other.scope, other.kind) for other in kinds), default=Effect.NOTHING)  # type: ignore[arg-type]
        assert entry.effect == strongest
    every_key = {
        DIGEST.key(scope, person, tenant, listed)
        for scope in (Scope.EVERYTHING, Scope.TENANT, Scope.LIST)
        for person in PERSONS for tenant in TENANTS for listed in LISTS
    }  # fmt: skip
    expected = dict.fromkeys(every_key, Effect.NOTHING)
    for entry in entries:
        expected[entry.key] = entry.effect
    for watch in world.watches:
        assert {key: watch.index.effect(key) for key in every_key} == expected
    assert head > 50
    await world.stop()
    if (tmp_path / "suppression.index").exists():
        with_file = Index(Base.empty())
        try:
            with_file.swap(Base.load(tmp_path / "suppression.index"))
        except Exception:
            return  # damaged as the last step
        assert with_file.position <= head
