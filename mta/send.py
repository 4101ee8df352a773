"""The load client behind `heed send`: a test campaign over many connections, with every recipient a different reader.

It reports what the server said, by code and enhanced code only, so that nothing it prints holds an address. A message
whose connection broke before its final dot is sent again; one whose dot was not answered is not, and is counted apart.
"""

import asyncio
import email.utils
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from config.failure import refused
from mta.filler import text
from mta.send_session import Login, Refused, Reply, Session, Work

_ATTEMPTS_WITHOUT_PROGRESS = 3
NOBODY = ConnectionRefusedError.__name__
"""The kind of a failure where nothing listens."""


@dataclass(frozen=True, slots=True)
class Campaign:
    """What to send. `size_octets` is about the size of a whole message; an empty list or campaign name is left out."""

    messages: int
    size_octets: int = 10_000
    recipients_per_message: int = 1
    sender: str = field(default="news@example.com", repr=False)
    recipient_domain: str = "example.net"
    first_recipient: int = 1
    list_name: str = "weekly.example.com"
    campaign: str = "test"
    campaign_header: str = "X-Campaign"
    seed: int = 0

    def __post_init__(self) -> None:
        if self.messages < 0 or self.size_octets < 0 or self.recipients_per_message < 1:
            raise ValueError("counts and sizes are not negative, and a message has a recipient")


@dataclass(slots=True)
class Result:
    """What became of a campaign so far; `refused` and `unanswered` count recipients, `failures` connections.

    Keys of `refused` are replies ("550 5.7.1"), those of `failures` kinds of error, or the stage and reply that ended
    a session.
    """

    messages: int
    accepted: int = 0
    accepted_recipients: int = 0
    done: int = 0
    unanswered: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    failures: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0

    @property
    def unsent(self) -> int:
        """Messages that no connection could be kept for."""
        return self.messages - self.done

    @property
    def accepted_per_second(self) -> float:
        """Messages."""
        return self.accepted / self.seconds if self.seconds else 0.0


async def send(
    campaign: Campaign,
    host: str,
    port: int,
    *,
    connections: int = 10,
    login: Login | None = None,
    timeout_seconds: float = 60.0,
    progress: Callable[[Result], None] | None = None,
    progress_seconds: float = 0.1,
) -> Result:
    """Send a campaign and say what became of it. A server that can't be reached shows in the result, not as an error.

    `progress` is called with the same, growing result, at most once in `progress_seconds` and at the end.
    """
    load = _Load(campaign, progress, progress_seconds)
    login = login or Login(server_name=host)
    wanted = min(connections, campaign.messages)
    await asyncio.gather(*(load.keep_connected(host, port, login, timeout_seconds) for _ in range(wanted)))
    load.finish()
    return load.result


class _Load:
    """The work, handed out to sessions, and the result they bring together."""

    def __init__(self, campaign: Campaign, progress: Callable[[Result], None] | None, progress_seconds: float) -> None:
        self.result = Result(campaign.messages)
        self._campaign, self._progress, self._progress_seconds = campaign, progress, progress_seconds
        self._next_number = 0
        self._returned: deque[Work] = deque()
        self._date = email.utils.formatdate(usegmt=True)
        self._run = f"{time.time_ns():x}"
        body_octets = campaign.size_octets - len(self._header(0, ["x" * 24]))
        self._body = text(max(2, body_octets), campaign.seed).encode()
        self._loop = asyncio.get_running_loop()
        self._started = self._reported = self._loop.time()

    async def keep_connected(self, host: str, port: int, login: Login, timeout_seconds: float) -> None:
        """One connection after the other while there is work and the server takes some of it."""
        attempts = 0
        while attempts < _ATTEMPTS_WITHOUT_PROGRESS and self._has_work():
            done = self.result.done
            try:
                await self._session(host, port, login, timeout_seconds)
            except Exception as error:  # whatever ends a session is counted
                self.result.failures[_kind(error)] += 1
            attempts = attempts + 1 if self.result.done == done else 0

    def take(self) -> Work | None:
        """The next message: one that came back, or a new one."""
        if self._returned:
            return self._returned.popleft()
        if self._next_number >= self._campaign.messages:
            return None
        number = self._next_number
        self._next_number += 1
        recipients = self._recipients(number)
        return Work(number, self._campaign.sender, recipients, self._header(number, recipients) + self._body)

    def give_back(self, work: Work) -> None:
        """It was never sent to its end, so it may go again."""
        work.accepted = 0
        self._returned.append(work)

    def refused_recipient(self, reply: Reply) -> None:
        """Count one."""
        self.result.refused[reply.label] += 1

    def finished(self, work: Work, reply: Reply | None) -> None:
        """Count one message, and show how far it has come."""
        self.result.done += 1
        if reply is None:
            self.result.unanswered += work.accepted
        elif work.accepted and reply.code // 100 == 2:
            self.result.accepted += 1
            self.result.accepted_recipients += work.accepted
        elif work.accepted:
            self.result.refused[reply.label] += work.accepted
        now = self._loop.time()
        if self._progress is not None and now - self._reported >= self._progress_seconds:
            self._report(now)

    def finish(self) -> None:
        """The last report."""
        self._report(self._loop.time())

    def _report(self, now: float) -> None:
        self._reported = now
        self.result.seconds = now - self._started
        if self._progress is not None:
            self._progress(self.result)

    def _has_work(self) -> bool:
        return bool(self._returned) or self._next_number < self._campaign.messages

    async def _session(self, host: str, port: int, login: Login, timeout_seconds: float) -> None:
        tls = None
        if login.tls == "implicit":
            tls = login.context or True
        _, session = await self._loop.create_connection(
            lambda: Session(self, login, timeout_seconds),
            host,
            port,
            ssl=tls,
            server_hostname=(login.server_name or host) if tls else None,
        )
        await session.over

    def _recipients(self, number: int) -> list[str]:
        campaign = self._campaign
        first = campaign.first_recipient + number * campaign.recipients_per_message
        return [
            f"reader-{n}@{campaign.recipient_domain}" for n in range(first, first + campaign.recipients_per_message)
        ]

    def _header(self, number: int, recipients: Sequence[str]) -> bytes:
        campaign = self._campaign
        to = recipients[0] if len(recipients) == 1 else "Readers:;"
        extra = f"List-Id: Weekly letter <{campaign.list_name}>\r\n" if campaign.list_name else ""
        extra += f"{campaign.campaign_header}: {campaign.campaign}\r\n" if campaign.campaign else ""
        return (
            f"From: Weekly letter <{campaign.sender}>\r\nTo: {to}\r\n"
            f"Subject: What is new this week, number {number + 1}\r\n"
            f"Date: {self._date}\r\nMessage-ID: <{self._run}.{number}@send.example.com>\r\n{extra}"
            "MIME-Version: 1.0\r\nContent-Type: text/plain; charset=us-ascii\r\nContent-Transfer-Encoding: 7bit\r\n\r\n"
        ).encode()


def _kind(error: Exception) -> str:
    """How a failure is counted: a refusal by its stage and reply, anything else by its type alone."""
    if refused(error):
        return NOBODY
    return str(error) if isinstance(error, Refused) else type(error).__name__
