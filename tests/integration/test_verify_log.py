"""verify-log finds what was done to the log or to the state in force, and names the first entry."""

from collections.abc import AsyncIterator

import pytest

from config.database import Database
from suppression import verify
from suppression.consent import Consents
from suppression.digest import Kind, MessageClass, Scope
from suppression.entry import Action, Channel
from suppression.log import SuppressionLog
from suppression.plan import Lift
from suppression.prove import Attempt, story_of
from suppression.scopes import Scopes
from suppression.verify import verify_log
from tests.support.suppressions import DIGEST, asked, opened


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    async with opened(database_url) as database:
        yield database


@pytest.fixture
async def log(database: Database, monkeypatch: pytest.MonkeyPatch) -> SuppressionLog:
    """Twenty suppressions, of which the third was lifted and came again."""
    monkeypatch.setattr(verify, "BATCH_ENTRIES", 7)
    log = SuppressionLog(database, DIGEST)
    await log.append([asked(person) for person in range(1, 21)])
    async with log.appending() as appending:
        lift = Lift(3, Scope.LIST, frozenset(Kind), 7, 9, Channel.CLI, "root", "a mistake")
        await appending.lift([lift], Action.LIFT_BY_OPERATOR)
    await log.append([asked(3)])
    return log


async def tamper(database: Database, statement: str) -> None:
    async with database.transaction() as connection:
        await connection.execute("ALTER TABLE suppression_log DISABLE TRIGGER USER")
        await connection.execute(statement)
        await connection.execute("ALTER TABLE suppression_log ENABLE TRIGGER USER")


async def test_an_untouched_log_is_intact(log: SuppressionLog) -> None:
    seen: list[tuple[int, int]] = []
    result = await verify_log(log, DIGEST, lambda done, of: seen.append((done, of)))
    assert (result.intact, result.entries, result.hash) == (True, 22, (await log.head())[1])
    assert seen == [(7, 22), (14, 22), (21, 22), (22, 22)]


async def test_an_empty_log_is_intact(database: Database) -> None:
    assert (await verify_log(SuppressionLog(database, DIGEST), DIGEST)).intact


@pytest.mark.parametrize(
    ("statement", "position", "reason"),
    [
        ("UPDATE suppression_log SET at = at + interval '1 second' WHERE position = 9", 9, "changed"),
        ("UPDATE suppression_log SET person = 99 WHERE position = 9", 9, "changed"),
        ("UPDATE suppression_log SET cancelled = 1 WHERE position = 22", 22, "changed"),
        ("UPDATE suppression_log SET hash = sha256('x') WHERE position = 9", 9, "changed"),
        ("UPDATE suppression_log SET previous = hash WHERE position = 9", 9, "does not follow"),
        ("DELETE FROM suppression_log WHERE position = 9", 9, "goes on at 10"),
        ("DELETE FROM suppression_log WHERE position > 15", 16, "head is at 22"),
        ("UPDATE suppression_head SET hash = sha256('x')", 22, "not the one that the head names"),
        ("DELETE FROM suppression WHERE position = 9", 9, "what is in force"),
        ("UPDATE suppression SET position = 8 WHERE position = 9", 9, "what is in force"),
        ("INSERT INTO suppression VALUES (424242, 1, 1, 5)", 5, "what is in force"),
    ],
)
async def test_the_first_broken_entry_is_named(
    log: SuppressionLog, database: Database, statement: str, position: int, reason: str
) -> None:
    await tamper(database, statement)
    result = await verify_log(log, DIGEST)
    assert not result.intact
    assert result.broken_position == position
    assert reason in result.reason


async def test_a_log_of_another_digest_key_is_not_taken_for_ours(log: SuppressionLog) -> None:
    from suppression.digest import Digest

    result = await verify_log(log, Digest(b"o" * 32))
    assert (result.broken_position, result.reason) == (1, "its key is not that of its person and scope")


async def test_the_story_of_a_person_comes_from_the_log_and_the_queue(log: SuppressionLog, database: Database) -> None:
    async def attempts_of(person: int) -> list[Attempt]:
        return [Attempt(float("inf"), "delivered", 7, 9, 1, 1, MessageClass.CAMPAIGN, "2.0.0")] if person == 3 else []

    story = await story_of(3, log, Consents(database, log), attempts_of, Scopes(DIGEST))
    assert [entry.action for entry in story.entries] == [Action.SUPPRESS, Action.LIFT_BY_OPERATOR, Action.SUPPRESS]
    assert len(story.late) == 1
    assert (await story_of(4, log, Consents(database, log), attempts_of, Scopes(DIGEST))).late == []
