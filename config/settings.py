"""Every option of Heed: type, unit, bound, default, meaning. One model.

config/sources.py fills it from files, environment and command line. An unknown key is an error. config/default.toml is
written from this module (`python -m config.settings`).
"""

import ipaddress
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, model_validator

_HOST_NAME = re.compile(r"(?=.{1,253}$)[A-Za-z0-9_]([A-Za-z0-9_-]{0,62})(\.[A-Za-z0-9_]([A-Za-z0-9_-]{0,62}))*")
_DATABASE_HOST = r"(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._~%-]+)(?::[0-9]{1,5})?"
_DATABASE_URL = re.compile(
    r"postgres(?:ql)?://(?:[^@/?#\s]*@)?"
    rf"(?:{_DATABASE_HOST}(?:,{_DATABASE_HOST})*)?(?:/[^?#\s]*)?(?:\?(?:[^=&#\s]+=[^=&#\s]*&?)*)?"
)
_LOCAL_PART = re.compile(r"(?=.{1,64}$)[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+(\.[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+)*")
_TENANT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")  # as mta/accounts.py takes them
_MAIL_DOMAIN_CHARACTERS = 190  # an address has 254; a token and the at sign need 64 of them


class Endpoint(NamedTuple):
    """A host (name or address, without brackets) and a port."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def endpoint(text: str, default_port: int | None = None) -> Endpoint:
    """Read `host:port` or `[IPv6]:port`; with default_port the port may be absent. Raises ValueError."""
    match = re.fullmatch(r"(?:\[([0-9A-Fa-f:.]+)\]|([^\[\]:\s]+))(?::([0-9]{1,5}))?", text.strip())
    if match is None or (match[3] is None and default_port is None) or not _is_host(match[1], match[2]):
        raise ValueError("is written host:port, or [IPv6 address]:port")
    port = int(match[3]) if match[3] is not None else default_port
    if port is None or not 0 <= port <= 65535:
        raise ValueError("a port is a number from 0 to 65535")
    return Endpoint(match[1] or match[2], port)


def _is_host(address: str | None, name: str) -> bool:
    return _is_address(address) if address else _HOST_NAME.fullmatch(name) is not None


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _checked_endpoint(text: str) -> str:
    return str(endpoint(text))


def _destination(text: str, default_port: int) -> Endpoint:
    """An endpoint that something can be sent to."""
    place = endpoint(text, default_port)
    if place.port == 0:
        raise ValueError("a port to connect to is a number from 1 to 65535")
    return place


def _checked_next_hop(text: str) -> str:
    return str(_destination(text, 25))


def _checked_nameserver(text: str) -> str:
    bare = text.count(":") > 1 and "[" not in text
    try:
        place = _destination(f"[{text}]" if bare else text, 53)
    except ValueError:
        place = None
    if place is None or not _is_address(place.host):
        raise ValueError("is the IP address of a DNS server, such as 192.0.2.53, 192.0.2.53:5353 or [2001:db8::53]:53")
    return str(place)


def _checked_web_url(text: str) -> str:
    try:
        _destination(text.removeprefix("https://"), 443)
    except ValueError:
        place = ""
    else:
        place = text
    if not place.startswith("https://"):
        raise ValueError("is written https://host or https://host:port, without a slash at the end")
    return place


def _checked_database(url: SecretStr) -> SecretStr:
    if not _DATABASE_URL.fullmatch(url.get_secret_value()):
        raise ValueError("is written postgresql://user:password@host:port/name; in a password, write %40 for an @")
    return url


def _checked_mailbox(text: str) -> str:
    local, _, domain = text.rpartition("@")
    if not _LOCAL_PART.fullmatch(local) or not _HOST_NAME.fullmatch(domain):
        raise ValueError("is a mail address such as postmaster@example.com")
    return text


def _checked_route(text: str) -> str:
    if not _HOST_NAME.fullmatch(text.removeprefix(".")):
        raise ValueError("is a domain such as example.com, or .example.com for its subdomains, in A-labels (xn--…)")
    return text


def _checked_tenant(text: str) -> str:
    if not _TENANT.fullmatch(text):
        raise ValueError("a tenant's name is 1 to 63 letters, digits, dots, dashes and underscores")
    return text


def _checked_path(path: Path) -> Path:
    if "\0" in str(path):
        raise ValueError("is a path, in which there is no NUL")
    return path


def _checked_host(text: str) -> str:
    if not _HOST_NAME.fullmatch(text):
        raise ValueError("is a host name such as mail.example.com")
    return text.lower()


def _split(value: object) -> object:
    """Lists may be written with commas where only text can be given (environment, --set)."""
    if isinstance(value, str):
        return [part.strip() for part in value.split(",") if part.strip()]
    return value


Place = Annotated[Path, AfterValidator(_checked_path)]
Listen = Annotated[list[Annotated[str, AfterValidator(_checked_endpoint)]], BeforeValidator(_split)]
HostName = Annotated[str, AfterValidator(_checked_host)]
NextHop = Annotated[str, AfterValidator(_checked_next_hop)]
Nameserver = Annotated[str, AfterValidator(_checked_nameserver)]


class Section(BaseModel):
    """A table of the configuration; a key that is not below is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Database(Section):
    url: Annotated[SecretStr, AfterValidator(_checked_database)] | None = Field(
        None, description="PostgreSQL 15 or later, postgresql://user:password@host/name; unset: one of Heed's own"
    )
    connections: int = Field(6, ge=2, le=100, description="connections of each worker")
    command_timeout_seconds: float = Field(
        5.0, ge=0.5, le=300, description="a statement that takes longer counts as a database that is gone"
    )


class Identity(Section):
    hostname: HostName = Field("heed.localhost", description="this node's name in EHLO, banners and trace fields")
    mail_domain: HostName = Field(
        "answers.heed.localhost",
        max_length=_MAIL_DOMAIN_CHARACTERS,
        description="domain of the return path and of unsubscribe addresses; its MX is the inbound listener",
    )
    web_url: Annotated[str, AfterValidator(_checked_web_url)] | None = Field(
        None, description="where subscribers reach the web listener, no slash at the end; unset: localhost at its port"
    )


class TrustedNetwork(Section):
    network: str = Field(description="addresses that may submit without AUTH, such as 10.1.0.0/16")
    tenant: Annotated[str, AfterValidator(_checked_tenant)] = Field(
        description="the tenant on whose behalf they submit; made when there is none"
    )
    message_class: Literal["campaign", "transactional"] = Field("campaign", description="class of their mail")

    @model_validator(mode="after")
    def _network(self) -> Self:
        try:
            ipaddress.ip_network(self.network)
        except ValueError:
            raise ValueError(f"network {self.network!r} is written like 10.1.0.0/16 or 2001:db8::/32") from None
        return self


class Submission(Section):
    listen: Listen = Field(["127.0.0.1:2587"], description="addresses with STARTTLS")
    listen_tls: Listen = Field(["127.0.0.1:2465"], description="addresses with TLS from the first byte")
    max_message_bytes: int = Field(26_214_400, ge=1_024, le=157_286_400, description="larger messages are refused")
    max_recipients: int = Field(10_000, ge=100, le=100_000, description="recipients of one message")
    max_connections: int = Field(10_000, ge=1, le=100_000, description="connections of each worker")
    idle_timeout_seconds: float = Field(300.0, ge=1, le=3_600, description="RFC 5321 4.5.3.2.7 asks for 300")
    auth_failures_per_minute: int = Field(10, ge=1, le=1_000, description="of one client address, then 421")
    campaign_header: str = Field(
        "X-Campaign", pattern=r"^[A-Za-z0-9-]{1,60}$", description="header field that names the campaign"
    )
    max_hold_seconds: int = Field(
        2_592_000,
        ge=0,
        le=31_536_000,
        description="how far ahead HOLDFOR and HOLDUNTIL may be (RFC 4865); 0: not offered",
    )
    dsn: bool = Field(True, description="tell the envelope sender by DSN what could not be delivered (RFC 3464)")
    trusted_networks: list[TrustedNetwork] = Field(
        [], description="networks that stand for a tenant; in the sandbox, the loopback interface for tenant sandbox"
    )


class Inbound(Section):
    listen: Listen = Field(["127.0.0.1:2525"], description="addresses for bounces, complaints and unsubscribe mail")
    max_message_bytes: int = Field(10_485_760, ge=65_536, le=157_286_400, description="larger messages are refused")
    max_connections: int = Field(1_000, ge=1, le=100_000, description="connections of each worker")
    forward_to: Annotated[str, AfterValidator(_checked_mailbox)] | None = Field(
        None, description="mailbox that gets mail to postmaster and abuse; unset: refused"
    )


class Web(Section):
    listen: Listen = Field(["127.0.0.1:8025"], description="one-click unsubscribe; TLS and plain HTTP on one port")


class Tls(Section):
    certificate: Place | None = Field(None, description="PEM chain for the listeners; unset: a self-signed one is made")
    key: Place | None = Field(None, description="PEM private key of that certificate")

    @model_validator(mode="after")
    def _both(self) -> Self:
        if (self.certificate is None) != (self.key is None):
            raise ValueError("certificate and key are set together")
        return self


class Metrics(Section):
    listen: Annotated[str, AfterValidator(_checked_endpoint)] = Field(
        "127.0.0.1:9125", description="/metrics, /healthz, /readyz"
    )


class Sink(Section):
    listen: Annotated[str, AfterValidator(_checked_endpoint)] = Field(
        "127.0.0.1:2500", description="the sandbox's own test MX"
    )


class Delivery(Section):
    mode: Literal["sandbox", "mx"] = Field(
        "sandbox", description="sandbox: everything goes to Heed's own sink; mx: to the recipients' mail exchangers"
    )
    next_hop: NextHop | None = Field(None, description="host:port that gets all mail, instead of sink or MX")
    routes: dict[Annotated[str, AfterValidator(_checked_route)], NextHop] = Field(
        {}, description="next hop by recipient domain, before everything else"
    )
    port: int = Field(25, ge=1, le=65535, description="port of mail exchangers")
    nameservers: Annotated[list[Nameserver], BeforeValidator(_split)] = Field(
        [], description="IP addresses of DNS servers, each with or without a port; unset: the system's"
    )
    allow_private: bool = Field(False, description="deliver to exchangers on private and loopback addresses too")
    tls: Literal["none", "opportunistic", "required"] = Field("opportunistic", description="STARTTLS towards peers")
    connections_per_site: int = Field(
        20, ge=1, le=10_000, description="open at once to one site, of all workers together"
    )
    messages_per_connection: int = Field(1_000, ge=1, le=1_000_000, description="then a connection is closed")
    idle_seconds: float = Field(5.0, ge=0, le=300, description="how long a connection without work is kept")
    connect_timeout_seconds: float = Field(30.0, ge=1, le=300, description="TCP, to one address")
    retry_seconds: Annotated[list[float], BeforeValidator(_split)] = Field(
        [60, 300, 900, 1_800, 3_600, 7_200, 14_400],
        min_length=1,
        description="waits before the second, third … attempt; the last one repeats",
    )
    retry_jitter: float = Field(0.1, ge=0, le=0.5, description="share by which a wait varies at random")
    lifetime_seconds: float = Field(432_000.0, ge=1, le=2_592_000, description="what is older expires, in every state")
    delay_notice_seconds: float = Field(
        14_400.0, ge=0, description="where NOTIFY=DELAY was given, a DSN says so when a message is this late"
    )

    @model_validator(mode="after")
    def _waits(self) -> Self:
        if any(not 0 < wait <= 604_800 for wait in self.retry_seconds):
            raise ValueError("retry_seconds: each wait is more than 0 and at most 604800")
        return self


class Queue(Section):
    memory_recipients: int = Field(24_000, ge=100, le=1_000_000, description="leased at once by each worker")
    memory_per_site: int = Field(8_000, ge=10, le=1_000_000, description="of these, for one site")
    memory_per_campaign: int = Field(
        12_000,
        ge=10,
        le=1_000_000,
        description="of these, for one campaign; more than for a site, which one alone can fill",
    )
    claim_batch: int = Field(500, ge=1, le=10_000, description="recipients claimed from one lane at once")
    poll_seconds: float = Field(1.0, ge=0.05, le=60, description="how often due recipients are looked for")
    commit_batch: int = Field(200, ge=1, le=10_000, description="messages in one transaction, at most")
    lease_timeout_seconds: float = Field(
        60.0, ge=15, le=3_600, description="a worker that is silent this long has lost what it leased"
    )
    max_bytes_in_memory: int = Field(
        268_435_456, ge=16_777_216, description="message content a worker holds; more is refused with 452"
    )


class Suppression(Section):
    max_staleness: float = Field(
        5.0, ge=0.5, le=60, description="seconds; a worker that can't prove its list newer than this sends nothing"
    )
    poll_seconds: float = Field(0.5, ge=0.05, le=30, description="the log is read this often, NOTIFY or not")

    canary_seconds: float = Field(
        60.0, ge=0, le=3_600, description="how often the public URL is tried, by which campaign mail is held; 0: never"
    )

    @model_validator(mode="after")
    def _poll_keeps_bound(self) -> Self:
        if self.poll_seconds * 2 > self.max_staleness:
            raise ValueError("poll_seconds is at most half of max_staleness")
        return self


class Bounces(Section):
    suppress_after: int = Field(
        3, ge=0, le=100, description="full or disabled mailboxes are suppressed after so many bounces; 0: never"
    )
    window_days: int = Field(30, ge=1, le=365, description="in so many days, without a success in between")


class Signing(Section):
    required: bool = Field(True, description="a submitted message whose From domain has no DKIM key is deferred")
    create_keys: bool | None = Field(
        None, description="make a key for a From domain that has none; unset: in the sandbox only"
    )


class Events(Section):
    retention_days: int = Field(
        30, ge=1, le=3_650, description="events are dropped after this; a webhook that is down for longer loses some"
    )
    file_dir: Place | None = Field(
        None, description="directory for all events as JSON lines, without addresses; unset: none are written"
    )
    file_max_bytes: int = Field(
        104_857_600, ge=1_048_576, description="the file is compressed and a new one begun at this size"
    )
    file_count: int = Field(30, ge=1, le=100_000, description="compressed files that are kept")


class Reports(Section):
    min_cell: int = Field(
        10, ge=2, le=10_000, description="a report shows no smaller number, and blurs every number by about as much"
    )


class Log(Section):
    level: Literal["debug", "info", "warning", "error"] = Field("info", description="the least severe that is shown")
    format: Literal["auto", "json", "console"] = Field("auto", description="auto: console on a terminal, else JSON")


class Settings(Section):
    """The whole configuration; frozen, handed down by the composition root."""

    data_dir: Place = Field(Path("var"), description="database, keys, journals, index; relative to where Heed starts")
    workers: int = Field(0, ge=0, le=256, description="worker processes; 0: one for each core")
    roles: Annotated[list[Literal["submission", "inbound", "web", "delivery"]], BeforeValidator(_split)] = Field(
        ["submission", "inbound", "web", "delivery"], min_length=1, description="what this node does"
    )
    database: Database = Database()
    identity: Identity = Identity()
    submission: Submission = Submission()
    inbound: Inbound = Inbound()
    web: Web = Web()
    tls: Tls = Tls()
    metrics: Metrics = Metrics()
    sink: Sink = Sink()
    delivery: Delivery = Delivery()
    queue: Queue = Queue()
    suppression: Suppression = Suppression()
    bounces: Bounces = Bounces()
    signing: Signing = Signing()
    events: Events = Events()
    reports: Reports = Reports()
    log: Log = Log()

    @model_validator(mode="after")
    def _leases_outlive_staleness(self) -> Self:
        # a worker must have stopped sending before another may take over what it leased
        if self.queue.lease_timeout_seconds < 2 * self.suppression.max_staleness:
            raise ValueError("queue.lease_timeout_seconds is at least twice suppression.max_staleness")
        return self

    @model_validator(mode="after")
    def _forwarded_mail_leaves(self) -> Self:
        if (self.inbound.forward_to or "").lower().endswith(f"@{self.identity.mail_domain}"):
            raise ValueError("inbound.forward_to must not be at identity.mail_domain: its mail would come back")
        return self

    @property
    def sandbox(self) -> bool:
        """Whether nothing may leave this machine."""
        return self.delivery.mode == "sandbox"

    @property
    def runs_sink(self) -> bool:
        """Whether the daemon starts a test MX of its own."""
        return self.sandbox and self.delivery.next_hop is None

    @property
    def creates_keys(self) -> bool:
        """Whether a From domain without a DKIM key gets one."""
        return self.sandbox if self.signing.create_keys is None else self.signing.create_keys

    @property
    def trusted_networks(self) -> list[TrustedNetwork]:
        """Networks that may submit without AUTH."""
        if self.sandbox and not self.submission.trusted_networks:
            return [
                TrustedNetwork(network="127.0.0.0/8", tenant="sandbox", message_class="campaign"),
                TrustedNetwork(network="::1/128", tenant="sandbox", message_class="campaign"),
            ]
        return self.submission.trusted_networks

    @property
    def web_url(self) -> str:
        """Where subscribers reach the web listener."""
        port = endpoint(self.web.listen[0]).port if self.web.listen else 443
        return self.identity.web_url or f"https://localhost:{port}"

    @property
    def worker_count(self) -> int:
        """Worker processes of this node."""
        return self.workers or os.cpu_count() or 1


class SettingsError(Exception):
    """One or more things wrong with the configuration; problems has a line for each."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


def default_toml() -> str:
    """The text of config/default.toml: every option with its meaning and default."""
    lines = [
        "# Every option of Heed with its default. Put what you change into a file of your own, given with --config.",
        "# An option may also be set in the environment (HEED_DELIVERY__NEXT_HOP) or by --set delivery.next_hop=…;",
        "# a list is written with commas there: --set submission.listen=127.0.0.1:2587,[::1]:2587",
        "",
    ]
    sections: list[tuple[str, type[BaseModel]]] = []
    for name, field in Settings.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, Section):
            sections.append((name, field.annotation))
        else:
            lines += _option(name, field.description, field.default)
    for name, section in sections:
        lines += ["", f"[{name}]"]
        for key, field in section.model_fields.items():
            lines += _option(key, field.description, field.default)
    return "\n".join(lines) + "\n"


def _option(name: str, description: str | None, default: object) -> list[str]:
    if default is None:
        return [f"# {description}", f"# {name} ="]
    return [f"# {description}", f"{name} = {_toml_value(default)}"]


def _toml_value(value: object) -> str:
    writers: dict[type, Callable[[Any], str]] = {
        bool: lambda v: str(v).lower(),
        list: lambda v: "[" + ", ".join(_toml_value(item) for item in v) + "]",
        dict: lambda v: "{" + ", ".join(f'"{k}" = {_toml_value(item)}' for k, item in v.items()) + "}",
        int: str,
        float: str,
    }
    writer = writers.get(type(value))
    return writer(value) if writer else f'"{value}"'


if __name__ == "__main__":
    print(default_toml(), end="")
