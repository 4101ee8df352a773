"""What all connections of a submission listener share: what is allowed, who may come in without AUTH, who is there.

And what is decided about a message without any of SMTP's dialogue: `admit` for a recipient, `attributed` for the whole.
Both refuse by CommandError, with the complete reply, which holds no address.
"""

import ipaddress
import ssl
import time
from collections.abc import Callable, Set
from dataclasses import dataclass
from typing import Final, Protocol

from metrics import registry
from mta.accounts import Accounts, Campaign, Credential, Tenant
from mta.commands import CommandError, Mail, Rcpt
from mta.content_room import ContentRoom
from mta.intake import Intake, Recipient, Submission
from mta.message import Message
from mta.orders import Book, Standing
from mta.passwords import Passwords
from mta.rejections import Rejections
from mta.vault import Address, Envelope
from suppression.consenting import Consenting
from suppression.digest import Digest, MessageClass
from suppression.gate import Gate, Verdict
from suppression.scopes import Scopes

UNAVAILABLE: Final = "451 4.3.0 Temporarily unable to take mail, try again later"
NO_CONSENT: Final = "550 5.7.1 Recipient has not consented to this mail"
_SUPPRESSED: Final = "550 5.7.1 Recipient is suppressed"


@dataclass(frozen=True, slots=True)
class Trusted:
    """A network that may submit without AUTH."""

    network: ipaddress.IPv4Network | ipaddress.IPv6Network
    tenant: Tenant
    message_class: MessageClass


@dataclass(frozen=True, slots=True)
class Policy:
    """What the listener allows. tls: what STARTTLS uses, None where the connection is TLS from its start."""

    hostname: str
    max_message_bytes: int
    max_recipients: int
    max_connections: int
    max_bytes_in_memory: int
    idle_timeout_seconds: float
    campaign_header: bytes
    trusted: tuple[Trusted, ...]
    tls: ssl.SSLContext | None
    max_hold_seconds: int = 0  # RFC 4865; 0: not offered


@dataclass(slots=True)
class Transaction:
    """MAIL and what followed it."""

    mail: Mail
    recipients: dict[int, Rcpt]


Client = Credential | Trusted
"""Whose mail it is."""


class Connection(Protocol):
    """A client's connection, as far as the listener has to do with it."""

    def shut_down(self) -> None:
        """Let go of the client unless an answer is owed."""
        ...


class Door:
    """What all connections of a listener share, and how much of it is in use."""

    def __init__(
        self,
        policy: Policy,
        intake: Intake,
        accounts: Accounts,
        digest: Digest,
        scopes: Scopes,
        gate: Gate,
        passwords: Passwords,
        consenting: Consenting,
        orders: Book,
        rejections: Rejections,
        now: Callable[[], float] = time.time,
    ) -> None:
        self.policy = policy
        self.intake = intake
        self.accounts = accounts
        self.digest = digest
        self.scopes = scopes
        self.gate = gate
        self.passwords = passwords
        self.consenting = consenting
        self.orders = orders
        self.rejections = rejections
        self.now = now
        self.connections: set[Connection] = set()
        self.content_room = ContentRoom(policy.max_bytes_in_memory)
        self.closing = False

    def trusted(self, peer: str) -> Trusted | None:
        """The network that a client's address is in, if it is trusted."""
        address = ipaddress.ip_address(peer.partition("%")[0])
        if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped:
            address = address.ipv4_mapped
        return next((entry for entry in self.policy.trusted if address in entry.network), None)

    def consent_required(self, who: "Client") -> bool:
        """Whether this client's mail goes only to who has consented."""
        return who.tenant.id in self.orders.consent_required and who.message_class is MessageClass.CAMPAIGN

    def admit(self, who: "Client", rcpt: Rcpt) -> int:
        """The person that a recipient is, unless it is suppressed in whatever list. Raises CommandError."""
        person = self.digest.person(rcpt.recipient)
        verdict = self.gate.allows(self.scopes.keys(person, who.tenant.id, 0), who.message_class)
        campaign_mail = who.message_class is MessageClass.CAMPAIGN
        if verdict is Verdict.STALE or (campaign_mail and not self.orders.fresh()):
            raise CommandError(UNAVAILABLE, "unavailable")
        if verdict is Verdict.SUPPRESSED:
            registry.suppressed.labels("rcpt").inc()
            raise CommandError(_SUPPRESSED, "suppressed", person)
        return person

    def attributed(
        self,
        who: "Client",
        transaction: Transaction,
        content: bytes,
        message: Message,
        campaign: Campaign,
        list_id: int,
        lacking: Set[int] = frozenset(),
    ) -> Submission:
        """The message without those recipients that have left the list, or whose consent is lacking.

        Raises CommandError when it is not taken for anybody.
        """
        recipients, withheld = self._sorted(who, transaction, campaign, list_id, lacking)
        if withheld:
            registry.suppressed.labels("data").inc(len(withheld))
        if not recipients:
            if any(not recipient.why for recipient in withheld):
                raise CommandError(_SUPPRESSED, "suppressed")
            raise CommandError(NO_CONSENT, "consent")
        now = self.now()
        if self.orders.standing(campaign.tenant_id, list_id, campaign.id, now) is Standing.CANCEL:
            raise CommandError("550 5.7.1 The campaign is cancelled", "cancelled")
        mail = transaction.mail
        # what a peer must be able to do is what the mail needs, not what a client declared to be on the safe side
        smtputf8 = message.internationalised or not mail.sender.isascii()
        envelope = Envelope(mail.sender, mail.ret, mail.envid, smtputf8, mail.eight_bit or message.eight_bit)
        return Submission(
            campaign,
            list_id,
            who.message_class,
            envelope,
            recipients,
            content,
            message,
            mail.release_at(now),
            self.scopes.position,
            withheld,
        )

    def _sorted(
        self, who: "Client", transaction: Transaction, campaign: Campaign, list_id: int, lacking: Set[int]
    ) -> tuple[list[Recipient], list[Recipient]]:
        """Those that get the message, and those that don't."""
        recipients, withheld = [], []
        for person, rcpt in transaction.recipients.items():
            keys = self.scopes.keys(person, campaign.tenant_id, list_id)
            recipient = Recipient(Address(rcpt.recipient, rcpt.notify, rcpt.orcpt), person, keys)
            if list_id and self.gate.allows(keys, who.message_class) is Verdict.SUPPRESSED:
                withheld.append(recipient)
            elif person in lacking:
                recipient.why = "no consent is recorded"
                withheld.append(recipient)
            else:
                recipients.append(recipient)
        return recipients, withheld

    def close(self) -> None:
        """Take no more commands; what is being committed is answered still."""
        self.closing = True
        for connection in list(self.connections):
            connection.shut_down()
