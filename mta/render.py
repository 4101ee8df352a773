"""What goes to the wire for one recipient: fields of the daemon, this recipient's tokens, signatures, content.

`Renderer.prepare` does once per message all that its recipients share: parse, drop and add fields, canonicalise, hash,
stuff dots. `Renderer.render` makes the tokens, signs and joins; it neither blocks nor keeps anything.
A campaign message always gets List-Unsubscribe and List-Unsubscribe-Post of the daemon's own (K3), whatever the
submitter wrote there; a transactional one gets none. A Reply-To of the daemon's own comes only where the tenant wants
answers read, and the submitter named none. Everything else of the submitter's stays as it is, well-formed
signatures too: content is never re-encoded, and 8-bit content never downgraded, since no signature would outlive it.
Raises `RenderError` for content that may not be sent, `SigningError` where a signature can't be made (K1).
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import format_datetime
from functools import lru_cache

from mta.message import Message, domain_name, parse
from mta.octets import first_leading_dot, has_bare_line_ends
from mta.signing import Signer, SigningKey, is_signature
from suppression.digest import MessageClass
from suppression.tokens import Purpose, Token, Tokens

ALWAYS_DROPPED = frozenset((b"return-path", b"bcc", b"resent-bcc"))
"""Never passed on: what only final delivery writes, and what names hidden recipients."""

REPLACED = frozenset((b"list-unsubscribe", b"list-unsubscribe-post"))
"""In campaign mail the daemon's to say."""

MAX_MAIL_DOMAIN_CHARACTERS = 190
"""63 for the token, one for the "@": an address has 254 at most (RFC 5321 §4.5.3.1.3)."""

_WEB_URL = re.compile(r"https?://[A-Za-z0-9.\[\]:-]{1,300}(?:/[A-Za-z0-9._~-]{1,64})*")
_QUEUE_ID = re.compile(r"[A-Za-z0-9-]{1,64}")
_LABEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
# Verifiers differ on whether these two are white space; as a blank they all agree.
_CONTROL_BLANKS = bytes.maketrans(b"\v\f", b"  ")
_POST = b"List-Unsubscribe-Post: List-Unsubscribe=One-Click\r\n"


class RenderError(Exception):
    """The content must not be sent. The text says why and quotes nothing of it."""


@dataclass(frozen=True, slots=True)
class Identity:
    """How this installation names itself in mail."""

    hostname: str
    mail_domain: str
    """Domain of token addresses: return paths, unsubscribe addresses, Message-IDs."""
    web_url: str
    """Where subscribers' links lead: scheme, host and port, without a slash at the end."""
    feedback_id: str
    """Last part of Feedback-ID, by which mailbox providers know the sender."""

    def __post_init__(self) -> None:
        if domain_name(self.hostname) != self.hostname.lower() or domain_name(self.mail_domain) != self.mail_domain:
            raise ValueError("hostname and mail domain are domain names, as A-labels")
        if len(self.mail_domain) > MAX_MAIL_DOMAIN_CHARACTERS:
            raise ValueError(f"the mail domain has at most {MAX_MAIL_DOMAIN_CHARACTERS} characters")
        if _WEB_URL.fullmatch(self.web_url) is None:
            raise ValueError("the web URL is http(s)://host[:port], without a slash at the end")
        if _LABEL.fullmatch(self.feedback_id) is None:
            raise ValueError("the Feedback-ID is letters, digits, '.', '_' and '-', 64 at most")


@dataclass(frozen=True, slots=True)
class Template:
    """A message made ready for its recipients: nothing in it changes any more, so that it may be shared and cached."""

    ids: tuple[int, int, int]
    message_id: int
    campaign: bool
    needs_message_id: bool
    needs_reply_to: bool
    trace: bytes = field(repr=False)
    tail: bytes = field(repr=False)
    signer: Signer = field(repr=False)

    @property
    def size(self) -> int:
        """Octets that this template keeps in memory, near enough for the bound of a cache."""
        return len(self.tail) + 2048


@dataclass(frozen=True, slots=True)
class Rendered:
    """One recipient's mail. `wire`: header and body, CRLF, dots stuffed, without the final dot."""

    return_path: str = field(repr=False)
    wire: bytes = field(repr=False)


class Renderer:
    """Makes templates of messages, and mail of templates."""

    def __init__(
        self,
        identity: Identity,
        tokens: Tokens,
        now: Callable[[], float],
        *,
        strip: frozenset[bytes] = frozenset(),
    ) -> None:
        """`now`: epoch seconds, the time of signatures. `strip`: lower-case names of fields that are not passed on."""
        self._identity = identity
        self._issue = tokens.issue
        self._now = now
        self._dropped = ALWAYS_DROPPED | strip
        domain = identity.mail_domain
        self._at_domain = f"@{domain}"
        self._message_id = f"Message-ID: <%b@{domain}>\r\n".encode("ascii")
        self._reply_to = f"Reply-To: <%b@{domain}>\r\n".encode("ascii")
        self._unsubscribe = (
            f"List-Unsubscribe: <{identity.web_url}/u/%b>,\r\n <mailto:%b@{domain}?subject=unsubscribe>\r\n"
        ).encode("ascii")
        self._canonical_message_id = _relaxed(self._message_id)
        self._canonical_reply_to = _relaxed(self._reply_to)
        self._canonical_unsubscribe = _relaxed(self._unsubscribe)

    def prepare(
        self,
        raw: bytes | Message,
        *,
        tenant_id: int,
        tenant_name: str,
        list_id: int,
        list_name: str,
        campaign_id: int,
        campaign_name: str,
        message_class: MessageClass,
        message_id: int,
        queue_id: str,
        received_at: float,
        keys: Sequence[SigningKey],
        answers_wanted: bool = False,
    ) -> Template:
        """The template of a message that `refuse` let pass. Signed with all `keys`; unsigned when there are none, which
        is the caller's decision (K1). `received_at` in epoch seconds; ids are 0 where there is none. A message that is
        given parsed was looked at by `refuse` or `readable`. `answers_wanted`: the tenant has a place for them.
        """
        message = readable(raw) if isinstance(raw, bytes) else raw
        campaign = message_class is MessageClass.CAMPAIGN
        dropped = self._dropped | REPLACED if campaign else self._dropped
        fields, names = self._kept(message, dropped), set(message.names) - dropped
        if b"date" not in names:
            fields.append(f"Date: {date_text(received_at)}\r\n".encode("ascii"))
        if b"feedback-id" not in names:
            parts = ((campaign_name, campaign_id), (list_name, list_id), (tenant_name, tenant_id))
            labels = ":".join(_label(name, number) for name, number in parts)
            fields.append(f"Feedback-ID: {labels}:{self._identity.feedback_id}\r\n".encode("ascii"))
        own = [] if b"message-id" in names else [b"message-id"]
        needs_reply_to = campaign and answers_wanted and b"reply-to" not in names
        if needs_reply_to:
            own.append(b"reply-to")
        if campaign:
            fields.append(_POST)
            own.append(b"list-unsubscribe")
        return Template(
            ids=(tenant_id, list_id, campaign_id),
            message_id=message_id,
            campaign=campaign,
            needs_message_id=b"message-id" not in names,
            needs_reply_to=needs_reply_to,
            trace=self._received(queue_id, received_at),
            tail=stuffed(b"".join(fields) + b"\r\n" + message.body),
            signer=Signer(keys, fields, own, message.body),
        )

    def render(self, template: Template, person: int) -> Rendered:
        """That template's mail to one person (the keyed digest of the address)."""
        issue, ids, message_id = self._issue, template.ids, template.message_id
        fields = canonical = b""
        if template.needs_message_id or template.needs_reply_to:
            reply = issue(Token(Purpose.REPLY, *ids, person, message_id)).encode("ascii")
            if template.needs_message_id:
                fields = self._message_id % reply
                canonical = self._canonical_message_id % reply
            if template.needs_reply_to:
                fields += self._reply_to % reply
                canonical += self._canonical_reply_to % reply
        if template.campaign:
            tokens = (
                issue(Token(Purpose.ONE_CLICK, *ids, person, message_id)).encode("ascii"),
                issue(Token(Purpose.UNSUBSCRIBE_MAIL, *ids, person, message_id)).encode("ascii"),
            )
            fields += self._unsubscribe % tokens
            canonical += self._canonical_unsubscribe % tokens
        signatures = template.signer.sign(canonical, int(self._now()))
        return_path = issue(Token(Purpose.RETURN_PATH, *ids, person, message_id)) + self._at_domain
        return Rendered(return_path, b"".join((signatures, template.trace, fields, template.tail)))

    @staticmethod
    def _kept(message: Message, dropped: frozenset[bytes]) -> list[bytes]:
        """What of the submitter's header is passed on."""
        return [
            _clean(raw_field)
            for name, raw_field in zip(message.names, message.fields, strict=True)
            if name not in dropped and (name != b"dkim-signature" or is_signature(raw_field))
        ]

    def _received(self, queue_id: str, received_at: float) -> bytes:
        """The trace field (RFC 5321 §4.4). It leaves the client out: a submitter's network is not the recipient's."""
        if _QUEUE_ID.fullmatch(queue_id) is None:
            raise RenderError("a queue id is letters, digits and hyphens")
        text = f"Received: by {self._identity.hostname} (Heed) id {queue_id};\r\n\t{date_text(received_at)}\r\n"
        return text.encode("ascii")


def readable(raw: bytes) -> Message:
    """What is stored, parsed; `RenderError` for what no submission could have left there."""
    if b"\0" in raw or has_bare_line_ends(raw):
        raise RenderError("the content holds NUL, or a CR or LF that is not part of CRLF")
    return parse(raw)


def stuffed(text: bytes) -> bytes:
    """The text with each leading dot of a line doubled (RFC 5321 §4.5.2)."""
    if first_leading_dot(text) >= 0:
        text = text.replace(b"\r\n.", b"\r\n..")
    return b"." + text if text.startswith(b".") else text


def date_text(seconds: float) -> str:
    """An instant in epoch seconds as header fields write it (RFC 5322 §3.3), in UTC."""
    return _date_text(int(seconds))


@lru_cache(maxsize=256)  # the messages of one second share it
def _date_text(seconds: int) -> str:
    return format_datetime(datetime.fromtimestamp(seconds, UTC))


def _clean(raw_field: bytes) -> bytes:
    return raw_field.translate(_CONTROL_BLANKS) if b"\v" in raw_field or b"\f" in raw_field else raw_field


def _label(name: str, number: int) -> str:
    """A part of Feedback-ID: the name where it is plain, otherwise the number. A name with an "@" never is."""
    return name if _LABEL.fullmatch(name) else str(number)


def _relaxed(pattern: bytes) -> bytes:
    """The relaxed form of one of our own fields, which have single blanks and fold at one."""
    name, _, value = pattern.partition(b": ")
    return name.lower() + b":" + value.replace(b"\r\n ", b" ")
