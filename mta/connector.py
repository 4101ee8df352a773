"""The way to a site's hosts: the first that takes a session, in their order, each by each of its addresses.

Opportunistic TLS: a peer whose TLS is broken gets its mail without, unless TLS is required. Raises SessionLost with the
last outcome when no host took one.
"""

import ssl
from dataclasses import dataclass

from bounce.outcome import Stage
from bounce.trouble import routing
from mta.routing import Route
from mta.session import Session, SessionLost


@dataclass(frozen=True, slots=True)
class Connector:
    """Opens sessions, as configured. hostname: how we greet; tls None: never."""

    hostname: str
    connect_seconds: float
    tls: ssl.SSLContext | None
    tls_required: bool

    async def connect(self, route: Route) -> Session:
        """A session with the first host of a route that takes one."""
        lost = SessionLost(routing("4.4.1", "no host to connect to"))
        for host in route.hosts:
            for address in host.addresses:
                try:
                    return await self._connect_to(host.name, address, host.port)
                except SessionLost as error:
                    lost = error
        raise lost

    async def _connect_to(self, host: str, address: str, port: int) -> Session:
        try:
            return await self._open(host, address, port, self.tls)
        except SessionLost as lost:
            if self.tls is None or self.tls_required or lost.outcome.stage is not Stage.STARTTLS:
                raise
            return await self._open(host, address, port, None)

    async def _open(self, host: str, address: str, port: int, tls: ssl.SSLContext | None) -> Session:
        return await Session.connect(
            host,
            address,
            port,
            hostname=self.hostname,
            connect_seconds=self.connect_seconds,
            tls=tls,
            tls_required=self.tls_required,
        )
