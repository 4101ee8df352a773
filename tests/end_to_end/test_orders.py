"""Orders on the real daemon: two workers, a peer that counts, and the command line."""

import asyncio
import json
import smtplib
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import asyncpg
import pytest

from tests.support.daemon import Daemon, founded, running
from tests.support.load import Load
from tests.support.peer import Connection, Peer
from tests.support.script import Script, hold, proceed
from tests.support.submit import message, submit


@asynccontextmanager
async def sending(tmp_path: Path, database_url: str, peer: Peer, **settings: object) -> AsyncIterator[Daemon]:
    options = {"delivery.next_hop": f"127.0.0.1:{peer.port}"}
    options |= {name.replace("__", "."): str(value) for name, value in settings.items()}
    async with running(Daemon(tmp_path / "node", database_url, settings=options)) as daemon:
        yield daemon


async def heed(daemon: Daemon, *arguments: str) -> str:
    """Run a command that has to succeed."""
    done = await asyncio.to_thread(daemon.command, *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


async def wait_for(daemon: Daemon, **totals: int) -> None:
    """Until the queue's totals are these."""

    async def there() -> bool:
        shown = json.loads(await heed(daemon, "queue", "--json"))["totals"]
        return all(shown[state] == count for state, count in totals.items())

    await daemon.eventually(there, 20, f"did not get to {totals}")


async def hand_in(daemon: Daemon, recipients: list[str], campaign: str) -> dict[str, str]:
    return await asyncio.to_thread(submit, daemon.ports.submission, recipients, message("news", campaign=campaign))


def readers(count: int) -> list[str]:
    return [f"reader{number}@example.net" for number in range(count)]


async def outcomes(database_url: str) -> dict[int, int]:
    """Final states with their number of recipients."""
    connection = await asyncpg.connect(database_url)
    try:
        return {row[0]: row[1] for row in await connection.fetch("SELECT state, count(*) FROM outcome GROUP BY state")}
    finally:
        await connection.close()


async def test_a_pause_stops_what_is_under_way_and_what_comes_and_resume_sends_it(
    tmp_path: Path, database_url: str
) -> None:
    go_on = asyncio.Event()
    async with (
        Peer(Script().on("DATA", hold(go_on), proceed())) as peer,
        sending(tmp_path, database_url, peer, delivery__connections_per_site=2) as daemon,
    ):
        assert await hand_in(daemon, readers(20), "spring") == {}
        await peer.reached("DATA")
        assert "within a second" in await heed(daemon, "campaign", "pause", "spring", "--reason", "complaints")
        assert await hand_in(daemon, readers(5), "spring") == {}
        go_on.set()  # only now the peer answers 354: the last check is after that
        await wait_for(daemon, queued=0, leased=0, held=25)
        assert peer.deliveries() == {}
        listed = json.loads(await heed(daemon, "campaign", "list", "--json"))["campaigns"]
        (spring,) = [row for row in listed if row["campaign"] == "spring"]
        assert (spring["state"], spring["reason"], spring["held"]) == ("paused", "complaints", 25)
        await heed(daemon, "campaign", "resume", "spring")
        await wait_for(daemon, queued=0, leased=0, held=0)
        assert sum(peer.deliveries().values()) == 25


async def test_a_cancelled_campaign_ends_for_every_recipient(tmp_path: Path, database_url: str) -> None:
    go_on = asyncio.Event()
    async with (
        Peer(Script().on("DATA", hold(go_on), proceed())) as peer,
        sending(tmp_path, database_url, peer, delivery__connections_per_site=2) as daemon,
    ):
        assert await hand_in(daemon, readers(20), "spring") == {}
        await peer.reached("DATA")
        await heed(daemon, "campaign", "pause", "spring", "--reason", "wrong price?")
        assert await hand_in(daemon, readers(3), "spring") == {}
        await heed(daemon, "campaign", "cancel", "spring", "--reason", "wrong price", "--yes")
        go_on.set()
        await wait_for(daemon, queued=0, leased=0, held=0)
        assert peer.deliveries() == {}
        assert await outcomes(database_url) == {5: 23}
        with pytest.raises(smtplib.SMTPDataError, match="cancelled"):
            await hand_in(daemon, readers(1), "spring")
        assert await hand_in(daemon, readers(1), "autumn") == {}
        await wait_for(daemon, queued=0, leased=0, held=0)
        assert peer.deliveries() == {"reader0@example.net": 1}


async def test_a_pause_is_in_force_within_a_second_under_load(tmp_path: Path, database_url: str) -> None:
    taken: list[float] = []

    async def note(connection: Connection) -> None:
        taken.append(time.monotonic())
        await connection.proceed()

    async with (
        Peer(Script().on("DOT", note)) as peer,
        sending(tmp_path, database_url, peer) as daemon,
        Load(daemon.ports.submission, connections=4) as load,
    ):
        await load.progress(200)
        await heed(daemon, "campaign", "pause", "--tenant", "sandbox", "--reason", "try")
        paused_at = time.monotonic()
        await load.progress(200)

        async def a_second_later() -> bool:
            return time.monotonic() > paused_at + 2

        await daemon.eventually(a_second_later, 5, "-")
        assert taken
        assert max(taken) < paused_at + 1
        await heed(daemon, "campaign", "resume", "--tenant", "sandbox")
        before = len(taken)

        async def goes_on() -> bool:
            return len(taken) > before + 200

        await daemon.eventually(goes_on, 20, "did not go on")


async def test_a_paused_site_is_left_alone(tmp_path: Path, database_url: str) -> None:
    async with Peer() as peer, sending(tmp_path, database_url, peer) as daemon:
        site = f"127.0.0.1:{peer.port}"
        await heed(daemon, "campaign", "pause", "--site", site, "--reason", "blocked us")
        assert await hand_in(daemon, ["anna@example.net", "bob@example.org"], "spring") == {}
        await wait_for(daemon, queued=0, leased=0, held=2)
        assert "blocked us" in await heed(daemon, "campaign", "list")
        await heed(daemon, "campaign", "resume", "--site", site)
        await wait_for(daemon, queued=0, leased=0, held=0)
        assert peer.deliveries() == {"anna@example.net": 1, "bob@example.org": 1}


async def test_what_is_paused_expires(tmp_path: Path, database_url: str) -> None:
    async with Peer() as peer, sending(tmp_path, database_url, peer, delivery__lifetime_seconds=2) as daemon:
        assert await hand_in(daemon, readers(1), "autumn") == {}
        await wait_for(daemon, queued=0, leased=0, held=0)
        await heed(daemon, "campaign", "pause", "autumn", "--reason", "try")
        assert await hand_in(daemon, readers(2), "autumn") == {}

        async def expired() -> bool:
            return (await outcomes(database_url)).get(3) == 2

        await daemon.eventually(expired, 20, "did not expire what it held")


async def test_mail_for_the_future_waits_for_it(tmp_path: Path, database_url: str) -> None:
    async with Peer() as peer, sending(tmp_path, database_url, peer) as daemon:

        def hand_in_for_later(parameter: str) -> tuple[bool, float]:
            with smtplib.SMTP("127.0.0.1", daemon.ports.submission) as client:
                client.ehlo()
                offered = client.has_extn("futurerelease")
                client.sendmail("news@example.com", ["anna@example.net"], message("later"), [parameter])
                return offered, time.time()

        offered, sent_at = await asyncio.to_thread(hand_in_for_later, "HOLDFOR=2")
        assert offered
        await peer.message()
        assert time.time() >= sent_at + 1.5
        until = datetime.now(UTC) + timedelta(seconds=2)
        await asyncio.to_thread(hand_in_for_later, f"HOLDUNTIL={until:%Y-%m-%dT%H:%M:%S}Z")
        await peer.message()
        assert time.time() >= until.timestamp() - 1
        with pytest.raises(smtplib.SMTPSenderRefused, match="future"):
            await asyncio.to_thread(hand_in_for_later, "HOLDFOR=999999999")


async def test_a_rescheduled_campaign_waits_for_its_window(tmp_path: Path, database_url: str) -> None:
    async with Peer() as peer, sending(tmp_path, database_url, peer) as daemon:
        assert await hand_in(daemon, readers(1), "spring") == {}
        await peer.message()
        later = datetime.now(UTC) + timedelta(hours=2)
        hours = f"{later:%H}:00-{later:%H}:59"
        await heed(daemon, "campaign", "reschedule", "spring", "--hours", hours, "--reason", "lunch")
        assert await hand_in(daemon, readers(2), "spring") == {}
        await wait_for(daemon, held=2, queued=0, leased=0)
        shown = await heed(daemon, "campaign", "show", "spring")
        assert "outside its window" in shown
        await heed(daemon, "campaign", "reschedule", "spring", "--always")
        await wait_for(daemon, queued=0, leased=0, held=0)
        assert sum(peer.deliveries().values()) == 3


@pytest.mark.parametrize(
    ("arguments", "code", "complaint"),
    [
        (["pause", "x"], 2, "--reason"),
        (["pause", "--reason", "x"], 2, "name a campaign"),
        (["resume"], 2, "name a campaign"),
        (["pause", "nothing", "--reason", "x"], 1, "there is no campaign 'nothing'"),
        (["pause", "x", "--list", "y", "--reason", "x"], 2, "not both"),
        (["pause", "x", "--site", "y", "--reason", "x"], 2, "named alone"),
        (["cancel", "", "--tenant", "acme", "--reason", "x", "--yes"], 2, "CAMPAIGN is empty"),
        (["pause", "x", "--tenant", " ", "--reason", "x"], 2, "--tenant is empty"),
        (["pause", "x", "--reason", "x", "--until", "soon"], 2, "is no time"),
        (["pause", "x", "--reason", "x", "--until", "2001-01-01"], 2, "in the past"),
        (["pause", "--tenant", "nobody", "--reason", "x"], 1, "there is no tenant"),
        (["cancel", "x", "--reason", "x"], 2, "--yes"),
        (["resume", "--site", "mx.example.net"], 1, "neither paused nor cancelled"),
        (["reschedule", "x"], 2, "--always"),
        (["reschedule", "x", "--hours", "late"], 2, "hours are like"),
        (["reschedule", "x", "--not-before", "2020-01-01"], 2, "in the past"),
        (["reschedule", "x", "--not-before", "0001-01-01"], 2, "is no time"),
        (["reschedule", "x", "--not-before", "2h", "--time-zone", "Mars/Base"], 2, "no time zone"),
        (["reschedule", "x", "--always", "--time-zone", "Europe/Berlin"], 2, "--always"),
        (["list", "--tenant", "nobody"], 1, "there is no tenant"),
        (["show", "nothing"], 1, "there is no campaign"),
        (["explode"], 2, "No such command"),
    ],
)
async def test_wrong_use_says_what_to_do(
    tmp_path: Path, database_url: str, arguments: list[str], code: int, complaint: str
) -> None:
    daemon = Daemon(founded(tmp_path / "node"), database_url)
    done = await asyncio.to_thread(daemon.command, "campaign", *arguments)
    assert done.returncode == code
    assert complaint in done.stderr
    assert "Traceback" not in done.stderr


async def test_a_name_that_is_another_ones_id_is_not_guessed_at(tmp_path: Path, database_url: str) -> None:
    async with Peer() as peer, sending(tmp_path, database_url, peer) as daemon:
        assert await hand_in(daemon, readers(1), "spring") == {}
        assert await hand_in(daemon, readers(1), "autumn") == {}
        found = json.loads(await heed(daemon, "campaign", "list", "--json"))["campaigns"]
        ids = {row["campaign"]: str(row["id"]) for row in found}
        assert await hand_in(daemon, readers(1), ids["spring"]) == {}
        done = await asyncio.to_thread(daemon.command, "campaign", "cancel", ids["spring"], "--reason", "x", "--yes")
        assert done.returncode == 1
        assert "is the id of campaign 'spring' (sandbox), and the name of another" in done.stderr
        told = await heed(daemon, "campaign", "pause", ids["autumn"], "--reason", "x", "--until", "2h", "--json")
        paused = json.loads(told)
        assert (paused["id"], paused["state"], paused["reason"]) == (int(ids["autumn"]), "paused", "x")


async def test_a_site_that_has_no_mail_is_said_to_have_none(tmp_path: Path, database_url: str) -> None:
    async with Peer() as peer, sending(tmp_path, database_url, peer) as daemon:
        told = await heed(daemon, "campaign", "pause", "--site", "gmial.com", "--reason", "complaints")
        assert "nothing waits in the queue for a site of that name" in told


async def test_no_database_is_a_message(tmp_path: Path) -> None:
    daemon = Daemon(founded(tmp_path / "node"), "postgresql://nobody@127.0.0.1:1/none")
    done = await asyncio.to_thread(daemon.command, "campaign", "list")
    assert done.returncode == 1
    assert done.stderr.startswith("database:")
    assert "Traceback" not in done.stderr
