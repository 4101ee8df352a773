"""An answer to a campaign, all the way: to the tenant as a letter, and as "unsubscribe" into force."""

import asyncio
import re
from pathlib import Path

from tests.end_to_end.test_way_out import header, mail
from tests.support.daemon import Daemon, running
from tests.support.submit import message, submit

ANNA, SERVICE = "anna@example.net", "service@acme.example"


async def in_sink(daemon: Daemon, recipient: str) -> bytes:
    """The one message that the sink has for a recipient."""
    found: list[bytes] = []

    async def there() -> bool:
        contents = [path.read_bytes() for path in (daemon.data_dir / "sink" / "new").iterdir()]
        found[:] = [content for content in contents if f"X-Envelope-To: <{recipient}>".encode() in content]
        return bool(found)

    await daemon.eventually(there, 20, f"delivered nothing to {recipient}")
    assert len(found) == 1
    return found[0]


def answer(text: str) -> bytes:
    quoted = "On Mon, Feb 3, 2025 at 10:11 News <news@example.com> wrote:\r\n> Hello. Unsubscribe here."
    return f"From: Anna <{ANNA}>\r\nSubject: Re: hello\r\n\r\n{text}\r\n\r\n{quoted}\r\n".encode()


async def test_a_letter_reaches_the_tenant_and_a_wish_is_in_force(tmp_path: Path, database_url: str) -> None:
    async with running(Daemon(tmp_path / "node", database_url, workers=1)) as daemon:
        set_ = await asyncio.to_thread(daemon.command, "tenant", "replies", "sandbox", "--to", SERVICE)
        assert set_.returncode == 0, set_.stderr
        assert await asyncio.to_thread(submit, daemon.ports.submission, [ANNA], message("hello")) == {}
        reply_to = header(await in_sink(daemon, ANNA), "Reply-To").strip("<>")
        inbound = daemon.ports.inbound

        await asyncio.to_thread(mail, inbound, ANNA, reply_to, answer("Nice letter!"))
        forwarded = await in_sink(daemon, SERVICE)
        assert forwarded.endswith(answer("Nice letter!").partition(b"\r\n\r\n")[2])
        assert b"\r\nFrom: Anna <anna@example.net>\r\n" in forwarded
        # its way back is ours, so that a failure is told and the sender's own policy (SPF) is not broken
        assert re.search(rb"X-Envelope-From: <[a-z2-7]{63}@", forwarded)

        await asyncio.to_thread(
            mail, inbound, ANNA, reply_to, answer("Please remove me from all your lists. Thanks, Anna")
        )

        async def refused() -> bool:
            try:
                said = await asyncio.to_thread(submit, daemon.ports.submission, [ANNA, "b@example.org"], message("x"))
            except OSError:
                return False
            return said.get(ANNA, "").startswith("550 5.7.1")

        await daemon.eventually(refused, 10, "still took mail for who had answered")
        assert await daemon.metric("heed_replies_total", action="unsubscribed") == 1
        assert await daemon.metric("heed_replies_total", action="forwarded") == 1
        assert "anna@" not in daemon.log
        assert SERVICE not in daemon.log
