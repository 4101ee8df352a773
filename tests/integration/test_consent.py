"""Consents lift an unsubscribe of their scope that is older, and nothing else."""

from collections.abc import AsyncIterator

import pytest

from config.database import Database
from suppression.consent import Consent, Consents
from suppression.digest import Kind, Scope
from suppression.entry import Action
from suppression.log import SuppressionLog
from tests.support.suppressions import DIGEST, asked, keys_of, opened


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    async with opened(database_url) as database:
        yield database


@pytest.fixture
def log(database: Database) -> SuppressionLog:
    return SuppressionLog(database, DIGEST)


@pytest.fixture
def consents(database: Database, log: SuppressionLog) -> Consents:
    return Consents(database, log)


def given(person: int = 5, scope: Scope = Scope.LIST, at: float | None = None, list_id: int = 9) -> Consent:
    return Consent(person, scope, 7, list_id, "double opt-in by bob@example.com", "shop", "api", at, "form 12")


async def test_a_newer_consent_lifts_and_is_recorded(log: SuppressionLog, consents: Consents) -> None:
    await log.append([asked(5)])
    [recorded] = await consents.record([given()])
    assert recorded.lifted is not None
    assert (recorded.lifted.action, recorded.lifted.channel) == (Action.LIFT_BY_CONSENT, "consent")
    assert recorded.lifted.reason.startswith(f"consent {recorded.consent_id}: ")
    assert await log.in_force(keys_of(5)) == []
    [known] = await consents.of_person(5)
    assert (known.basis, known.source, known.evidence) == ("double opt-in by <address>", "shop", "form 12")


async def test_an_older_consent_is_recorded_and_lifts_nothing(log: SuppressionLog, consents: Consents) -> None:
    [entry] = await log.append([asked(5)])
    for at in (entry.at - 3600, entry.at):
        [recorded] = await consents.record([given(at=at)])
        assert recorded.lifted is None
    assert await log.in_force(keys_of(5)) == [entry]
    assert len(await consents.of_person(5)) == 2


@pytest.mark.parametrize("kind", [Kind.COMPLAINT, Kind.HARD_BOUNCE, Kind.MANUAL, Kind.LEGAL])
async def test_only_an_unsubscribe_is_lifted_by_consent(log: SuppressionLog, consents: Consents, kind: Kind) -> None:
    await log.append([asked(5, kind=kind)])
    [recorded] = await consents.record([given()])
    assert recorded.lifted is None
    assert len(await log.in_force(keys_of(5))) == 1


async def test_only_the_scope_of_the_consent_is_lifted(log: SuppressionLog, consents: Consents) -> None:
    await log.append([asked(5), asked(5, scope=Scope.TENANT), asked(5, scope=Scope.EVERYTHING), asked(6)])
    await consents.record([given()])
    assert {entry.scope for entry in await log.in_force(keys_of(5))} == {Scope.TENANT, Scope.EVERYTHING}
    assert len(await log.in_force(keys_of(6))) == 1


async def test_a_consent_from_the_future_is_refused_and_nothing_of_its_batch_is_kept(
    log: SuppressionLog, consents: Consents
) -> None:
    await log.append([asked(5)])
    with pytest.raises(ValueError, match="future"):
        await consents.record([given(), given(at=9e9)])
    assert len(await log.in_force(keys_of(5))) == 1
    assert await consents.of_person(5) == []


async def test_who_consented(consents: Consents) -> None:
    await consents.record([given(5), given(6, Scope.TENANT, list_id=0), given(7, list_id=8)])
    assert await consents.lists_of([(5, 7), (6, 7), (7, 7), (8, 7)]) == {(5, 7): {9}, (6, 7): {0}, (7, 7): {8}}
    assert await consents.lists_of([(5, 1), (6, 1)]) == {}


async def test_of_several_consents_in_a_batch_the_newer_one_lifts(log: SuppressionLog, consents: Consents) -> None:
    [entry] = await log.append([asked(5)])
    older, newer, other = await consents.record([given(at=entry.at - 60), given(), given(6)])
    assert (older.lifted, other.lifted) == (None, None)
    assert newer.lifted is not None
    assert newer.lifted.reason.startswith(f"consent {newer.consent_id}:")


async def test_a_later_unsubscribe_counts_again(log: SuppressionLog, consents: Consents) -> None:
    await log.append([asked(5)])
    await consents.record([given()])
    [again] = await log.append([asked(5)])
    assert not again.already_in_force
    assert await log.in_force(keys_of(5)) == [again]
