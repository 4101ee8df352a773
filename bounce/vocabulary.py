"""Words by which mail systems and auto-responders give themselves away, in the languages that mail is written in.

The words are data, in config/bounce_words.toml. One of them never decides alone: the reader asks for structure too.
What people write is in config/reply_words.toml.
"""

import importlib.resources
import tomllib
from collections.abc import Mapping, Sequence
from typing import Any

from bounce.patterns import Finder


def _shipped(name: str) -> dict[str, Any]:
    return tomllib.loads(importlib.resources.files("config").joinpath(name).read_text(encoding="utf-8"))


_WORDS = _shipped("bounce_words.toml")
_REPLY_WORDS = _shipped("reply_words.toml")


def reply_words(table: str) -> Mapping[str, Sequence[str]]:
    """Patterns by name: of a language ("en"), or of what answers quote ("quotation")."""
    words: Mapping[str, Sequence[str]] = _REPLY_WORDS[table]
    return words


def _any_of(name: str, frame: str = "{}") -> Finder:
    return Finder(frame.format("|".join(_WORDS[name])))


MAIL_SYSTEM = _any_of("mail_system")
"""A From field of a mail system."""

PURE_MAIL_SYSTEM = _any_of("pure_mail_system")
"""A From field that no person uses; a postmaster may be a person."""

FAILURE_SUBJECT = _any_of("failure_subject")
"""A Subject of a bounce."""

DELAY = _any_of("delay")
"""A notice that delivery goes on."""

AUTO_REPLY_SUBJECT = _any_of("auto_reply_subject")
"""A Subject of an automatic answer."""

CHALLENGE = _any_of("challenge")
"""A mail that wants its sender to prove to be a person."""

UNSUBSCRIBE = _any_of(
    "unsubscribe", r"^\W*(?:(?:re|aw|fwd?|tr|rv|sv) ?: ?)*(?:please |bitte |kindly )?(?:{})(?: bitte| please)?\W*$"
)
"""A whole Subject, or the whole first line of a text, that asks for an end."""

FAILED_WORDS = _any_of("failed_words")
"""Any word of failing; a notice without one is no bounce."""

DELIVERED_WORDS = _any_of("delivered_words")
"""A heading over those who got it."""

GIVEN_UP = _any_of("given_up")
"""A notice that delivery does not go on, whatever else it says of trying."""

ONLY_A_WARNING = _any_of("only_a_warning")
"""A notice that says of itself that nothing is lost yet, whatever else it calls fatal."""

ANSWERED_BEFORE_RCPT = _any_of("answered_before_rcpt")
"""A reply that answered HELO or MAIL: it is about the sender."""

ANSWERED_RCPT = _any_of("answered_rcpt")
"""A reply that answered RCPT: it is about the recipient."""

ANSWERED_DATA = _any_of("answered_data")
"""A reply that answered the content: RCPT had been accepted before."""

NO_REPLY = _any_of("no_reply")
"""A From field of a program that takes no answer: a mail system, or any other."""

NOTICE_OPENING = _any_of("notice_opening")
"""How mail systems open a notice, in words that no person uses."""
