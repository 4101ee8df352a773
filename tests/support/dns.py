"""A name server for tests, on a loopback port of its own, UDP and TCP, that answers from a dict and fails to order.

    async with NameServer({"example.net": ["300 MX 10 mx.example.net."], "mx.example.net": ["60 A 192.0.2.1"]}) as dns:

Records are zone-file text without the owner name. In place of records a name may have FAIL (SERVFAIL) or SILENT (no
reply ever); an absent name is NXDOMAIN, an existing one without the type is NODATA. `holds` keeps back the replies for
a name until its event is set. Answers that don't fit into UDP are truncated. It counts every query it gets.
"""

import asyncio
import contextlib
import socket
from collections import Counter
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Self, cast

from dnslib import QTYPE, RCODE, RR, SOA, DNSHeader, DNSRecord

FAIL = "SERVFAIL"
SILENT = "no reply"
NEGATIVE_TTL_SECONDS = 90
_PLAIN_UDP_OCTETS = 512


class NameServer:
    """Async context manager; `port` serves both transports. `zone` may be changed at any time."""

    def __init__(
        self, zone: Mapping[str, Sequence[str] | str], *, per_type: Mapping[tuple[str, str], str] | None = None
    ):
        """`per_type` overrides one type of a name with FAIL or SILENT: ("mx.example.net", "AAAA")."""
        self.zone = dict(zone)
        self.per_type = dict(per_type or {})
        self.holds: dict[str, asyncio.Event] = {}
        self.queries: Counter[tuple[str, str]] = Counter()
        self.over_tcp: Counter[tuple[str, str]] = Counter()
        self.port = 0
        self._asked = asyncio.Condition()
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        listener = socket.create_server(("127.0.0.1", 0))
        self.port = listener.getsockname()[1]
        loop = asyncio.get_running_loop()
        self._udp, _ = await loop.create_datagram_endpoint(lambda: _Datagrams(self), ("127.0.0.1", self.port))
        self._tcp = await asyncio.start_server(self._serve_tcp, sock=listener)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._udp.close()
        self._tcp.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._tcp.wait_closed()

    async def asked(self, name: str, kind: str, patience_seconds: float = 10) -> None:
        """Until the name has been asked for."""
        async with asyncio.timeout(patience_seconds), self._asked:
            await self._asked.wait_for(lambda: self.queries[name, kind] > 0)

    async def answer(self, query: bytes, *, tcp: bool) -> bytes | None:
        """The reply to one packet; None for silence."""
        request = DNSRecord.parse(query)
        name, kind = str(request.q.qname).rstrip(".").lower(), QTYPE[request.q.qtype]
        (self.over_tcp if tcp else self.queries)[name, kind] += 1
        async with self._asked:
            self._asked.notify_all()
        if name in self.holds:
            await self.holds[name].wait()
        reply = self._reply(request, name, kind)
        if reply is None:
            return None
        packed: bytes = reply.pack()
        limit = max((rr.edns_len for rr in request.ar if rr.rtype == QTYPE.OPT), default=_PLAIN_UDP_OCTETS)
        return _truncated(request) if not tcp and len(packed) > limit else packed

    def serve(self, work: Any) -> None:
        """Run one answer beside the others."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _reply(self, request: DNSRecord, name: str, kind: str) -> DNSRecord | None:
        reply = DNSRecord(DNSHeader(id=request.header.id, qr=1, ra=1, rd=1), q=request.q)
        target = self._follow(reply, name, kind)
        records = self.per_type.get((target, kind), self.zone.get(target))
        if records == SILENT:
            return None
        if records == FAIL:
            reply.header.rcode = RCODE.SERVFAIL
            return reply
        matching = [rr for rr in self._parse(target, records or ()) if QTYPE[rr.rtype] == kind]
        for rr in matching:
            reply.add_answer(rr)
        if not matching:
            reply.header.rcode = RCODE.NXDOMAIN if records is None and not self._has_children(target) else 0
            reply.add_auth(RR(".", QTYPE.SOA, ttl=NEGATIVE_TTL_SECONDS, rdata=SOA(times=(1, 1, 1, 1, 3600))))
        return reply

    def _follow(self, reply: DNSRecord, name: str, kind: str) -> str:
        """Add the chain of aliases that starts at `name`; the name at its end (in a loop, the first one seen twice)."""
        seen = set[str]()
        while name not in seen and kind != "CNAME":
            seen.add(name)
            aliases = [rr for rr in self._parse(name, self.zone.get(name, ())) if rr.rtype == QTYPE.CNAME]
            if not aliases:
                break
            reply.add_answer(aliases[0])
            name = str(aliases[0].rdata.label).rstrip(".").lower()
        return name

    def _has_children(self, name: str) -> bool:
        return any(other.endswith("." + name) for other in self.zone)

    @staticmethod
    def _parse(name: str, records: Sequence[str] | str) -> list[RR]:
        if isinstance(records, str):
            return []
        return [rr for text in records for rr in RR.fromZone(f"{name}. {text}")]

    async def _serve_tcp(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                length = int.from_bytes(await reader.readexactly(2), "big")
                reply = await self.answer(await reader.readexactly(length), tcp=True)
                if reply is not None:
                    writer.write(len(reply).to_bytes(2, "big") + reply)
        writer.close()


def _truncated(request: DNSRecord) -> bytes:
    header = DNSHeader(id=request.header.id, qr=1, ra=1, rd=1, tc=1)
    return bytes(DNSRecord(header, q=request.q).pack())


class _Datagrams(asyncio.DatagramProtocol):
    def __init__(self, server: NameServer) -> None:
        self._server = server

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self._server.serve(self._answer(data, addr))

    async def _answer(self, data: bytes, addr: tuple[str, int]) -> None:
        reply = await self._server.answer(data, tcp=False)
        if reply is not None:
            self._transport.sendto(reply, addr)
