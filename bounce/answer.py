"""An answer to a mail of ours: what it asks for, who sent it and whether by hand, and which mail is answered.

Never raises; time is bounded by `MAX_MESSAGE_BYTES`. Which of the texts here hold a token is the caller's to ask.
"""

from dataclasses import dataclass, field

from bounce.mime import Entity, decoded_words, parse
from bounce.notices import AUTO_HEADERS
from bounce.own_words import own_text
from bounce.reader import MAX_MESSAGE_BYTES
from bounce.text import addresses
from bounce.wishes import Wish, wish_of

_MACHINES_PRECEDENCE = frozenset({"bulk", "junk", "list", "auto_reply", "auto-reply"})
_REFERENCES = ("in-reply-to", "references")
_OURS = ("delivered-to", "message-id", "list-unsubscribe")
_MAX_VALUES = 5


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer.

    `references`: the message that is answered, and those before it. `marks`: fields in which a token of ours means that
    the daemon made the mail, or has passed it on. `machine`: a program or a list sent it (RFC 3834 §2). `no_question`:
    the sender wants no automatic answer. `hops`: trace fields.
    """

    wish: Wish
    author: str = field(repr=False)
    message_id: str = field(repr=False)
    references: tuple[str, ...] = field(repr=False)
    marks: tuple[str, ...] = field(repr=False)
    machine: bool
    no_question: bool
    hops: int


def answer_of(message: bytes) -> Answer:
    """Read `message`."""
    top = parse(message[:MAX_MESSAGE_BYTES])
    sender = decoded_words(top.first("from"))
    return Answer(
        wish_of(decoded_words(top.first("subject")), own_text(top), sender),
        next(iter(addresses(sender)), ""),
        top.first("message-id"),
        _values(top, _REFERENCES),
        _values(top, _OURS),
        _is_machine(top),
        bool(top.first("x-auto-response-suppress")),
        len(top.all("received")),
    )


def _values(top: Entity, names: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(value for name in names for value in top.all(name)[:_MAX_VALUES])


def _is_machine(top: Entity) -> bool:
    submitted = top.first("auto-submitted").partition(";")[0].strip().lower()
    if submitted not in {"", "no"} or top.first("precedence").strip().lower() in _MACHINES_PRECEDENCE:
        return True
    return any(name.startswith("list-") or name in AUTO_HEADERS for name, _ in top.headers)
