"""The cause of a failure, from the text of a reply or of a Diagnostic-Code and from its codes.

Two sources, one classifier. Rules are data (config/bounce_rules.toml). Who wins, where text and code disagree:

1. A strong text rule. Administrators write the text for people and copy the code from anywhere: 5.7.1 with "user
   unknown" is an unknown user, 5.1.1 with "listed at Spamhaus" is not.
2. Among several strong texts, the class further up in `_CAUTION`: what says something about us, before what says
   something about the person, because a wrong suppression is worse than a missed one.
3. An enhanced code that is specific (x.1.1, x.2.2 …, not x.0.0, x.5.0, x.7.1).
4. A weak text rule ("mailbox unavailable"), then an unspecific code, then the bare reply code.

Permanence is the code's business: the text says why, the code says whether it lasts.
"""

import functools
import importlib.resources
import re
import tomllib
from dataclasses import dataclass, replace

from bounce.outcome import BounceClass
from bounce.patterns import PatternSet
from bounce.vocabulary import ANSWERED_BEFORE_RCPT

TEXT_CHARACTERS = 4000
"""How much of a text is looked at: a diagnosis is a few lines, and whoever writes more is not diagnosing."""

_REPORT_CHARACTERS = 200_000


def share(recipients: int) -> int:
    """How much of the text of each of so many recipients is looked at: whoever names hundreds has a line for each."""
    return min(TEXT_CHARACTERS, _REPORT_CHARACTERS // max(recipients, 1))


C = BounceClass

_CAUTION: tuple[BounceClass, ...] = (
    C.TLS_REQUIRED,
    C.SMTPUTF8_UNSUPPORTED,
    C.GREYLISTED,
    C.AUTHENTICATION,
    C.REPUTATION,
    C.RATE_LIMITED,
    C.CONTENT,
    C.ROUTING_LOOP,
    C.TOO_LARGE,
    C.POLICY,
    C.RELAYING_DENIED,
    C.SYSTEM,
    C.MAILBOX_FULL,
    C.MAILBOX_DISABLED,
    C.MOVED,
    C.NETWORK,
    C.NULL_MX,
    C.UNKNOWN_HOST,
    C.UNKNOWN_USER,
    C.EXPIRED,
)
_RANK = {bounce_class: rank for rank, bounce_class in enumerate(_CAUTION)}
# Weak texts are words that stand in other failures' texts too ("rejected"): there the more telling comes first.
_WEAK_RANK = {**_RANK, C.SYSTEM: 100, C.NETWORK: 101, C.POLICY: 102, C.UNKNOWN_HOST: 103, C.UNKNOWN_USER: 104}
_BY_WEAK_RANK = {rank: bounce_class for bounce_class, rank in _WEAK_RANK.items()}

ABOUT_THE_PERSON = frozenset(
    {C.UNKNOWN_USER, C.UNKNOWN_HOST, C.NULL_MX, C.MAILBOX_DISABLED, C.MAILBOX_FULL, C.MOVED},
)
"""Classes that say something about the recipient; all others are about us, the message or the way there."""

# RFC 3463, RFC 5248 and IANA's registry, by subject and detail. Only codes that name one cause and are rarely misused.
_SPECIFIC_CODES: dict[str, BounceClass] = {
    "1.1": C.UNKNOWN_USER,
    "1.2": C.UNKNOWN_HOST,
    "1.3": C.UNKNOWN_USER,
    "1.6": C.MOVED,
    "1.10": C.NULL_MX,
    "2.1": C.MAILBOX_DISABLED,
    "2.2": C.MAILBOX_FULL,
    "2.3": C.TOO_LARGE,
    "3.4": C.TOO_LARGE,
    "4.5": C.SYSTEM,
    "4.6": C.ROUTING_LOOP,
    "4.7": C.EXPIRED,
    "5.3": C.RATE_LIMITED,
    "6.7": C.SMTPUTF8_UNSUPPORTED,
    "6.8": C.SMTPUTF8_UNSUPPORTED,
    "6.9": C.SMTPUTF8_UNSUPPORTED,
    "6.10": C.SMTPUTF8_UNSUPPORTED,
    "7.5": C.TLS_REQUIRED,
    "7.10": C.TLS_REQUIRED,
    "7.13": C.MAILBOX_DISABLED,
    "7.17": C.MOVED,
    "7.18": C.MOVED,
    "7.20": C.AUTHENTICATION,
    "7.21": C.AUTHENTICATION,
    "7.22": C.AUTHENTICATION,
    "7.23": C.AUTHENTICATION,
    "7.24": C.AUTHENTICATION,
    "7.25": C.AUTHENTICATION,
    "7.26": C.AUTHENTICATION,
    "7.27": C.AUTHENTICATION,
    "7.28": C.RATE_LIMITED,
    "7.29": C.AUTHENTICATION,
    "7.30": C.TLS_REQUIRED,
    "7.509": C.AUTHENTICATION,
    "7.515": C.AUTHENTICATION,
}

_SENDER_CODES = frozenset({"1.7", "1.8"})

# By subject alone: a direction, no more. x.1.x stays OTHER, as "something with an address" is no unknown user.
_SUBJECTS: dict[str, BounceClass] = {
    "3": C.SYSTEM,
    "4": C.NETWORK,
    "5": C.SYSTEM,
    "6": C.CONTENT,
    "7": C.POLICY,
}

_REPLY_CODES: dict[int, BounceClass] = {
    421: C.SYSTEM,
    451: C.SYSTEM,
    452: C.SYSTEM,
    455: C.SYSTEM,
    500: C.SYSTEM,
    501: C.SYSTEM,
    502: C.SYSTEM,
    503: C.SYSTEM,
    504: C.SYSTEM,
    523: C.TOO_LARGE,
    530: C.POLICY,
    535: C.POLICY,
    555: C.SYSTEM,
    556: C.NULL_MX,
}


@dataclass(frozen=True, slots=True)
class Rule:
    """One line of config/bounce_rules.toml: `sample` is text of ours that `pattern` must find."""

    bounce_class: BounceClass
    pattern: str
    sample: str
    weak: bool = False
    certain: bool = False


@dataclass(frozen=True, slots=True)
class Cause:
    """Why, and by what it was told: "text", "code", "weak text", "subject", "reply" or "" (nothing did).

    `certain`: the text is of a kind that needs no second witness. `expired`: it also says that time ran out, so that
    the cause may have been a passing one.
    """

    bounce_class: BounceClass
    told_by: str
    certain: bool = False
    expired: bool = False


class Classifier:
    """Rules, compiled once. Thread-safe and without state."""

    def __init__(self, rules: tuple[Rule, ...]) -> None:
        self.rules = rules
        self._patterns = PatternSet([rule.pattern for rule in rules])
        # The same text is asked about again: for the cause, and for what contradicts it.
        self._known = functools.lru_cache(maxsize=16)(self._matching)

    def matching(self, text: str) -> list[Rule]:
        """Every rule that finds its pattern in `text`, after addresses were taken out of it."""
        return self._known(text[:TEXT_CHARACTERS])

    def _matching(self, text: str) -> list[Rule]:
        return [self.rules[index] for index in self._patterns.matches(_essence(text))]

    def cause(self, text: str, status: str = "", reply_code: int = 0, *, before_rcpt: bool = False) -> Cause:
        """The most likely cause, or `Cause(OTHER, "")`. `status` is "5.1.1" or "", `reply_code` 0 where unknown.

        `before_rcpt`: known to answer HELO or MAIL (the text or the code may say so too). Then "unknown user" or "no
        such domain" is about the sender, and a matter of policy.
        """
        cause = self._cause(text, status, reply_code)
        if cause.bounce_class not in ABOUT_THE_PERSON | {C.OTHER}:
            return cause
        about_sender = (
            before_rcpt
            or status.partition(".")[2] in _SENDER_CODES
            or ANSWERED_BEFORE_RCPT.search(text[:TEXT_CHARACTERS])
        )
        return replace(cause, bounce_class=C.POLICY, certain=False) if about_sender else cause

    def _cause(self, text: str, status: str, reply_code: int) -> Cause:
        found = self.matching(text)
        detail = status.partition(".")[2]
        expired = detail == "4.7" or any(rule.bounce_class is C.EXPIRED for rule in found)
        strong = [rule for rule in found if not rule.weak]
        if strong:
            told = _CAUTION[min(_RANK[rule.bounce_class] for rule in strong)]
            if told is C.UNKNOWN_USER and detail == "1.6":
                told = C.MOVED
            return Cause(told, "text", any(rule.certain and rule.bounce_class is told for rule in strong), expired)
        if detail in _SPECIFIC_CODES:
            doubted = any(rule.bounce_class not in ABOUT_THE_PERSON for rule in found)
            return Cause(_SPECIFIC_CODES[detail], "code", not doubted, expired)
        if found:
            return Cause(
                _BY_WEAK_RANK[min(_WEAK_RANK[rule.bounce_class] for rule in found)], "weak text", False, expired
            )
        subject = detail.partition(".")[0]
        if subject in _SUBJECTS:
            return Cause(_SUBJECTS[subject], "subject")
        if reply_code in _REPLY_CODES:
            return Cause(_REPLY_CODES[reply_code], "reply")
        return Cause(C.OTHER, "")


def parse_rules(toml: str) -> tuple[Rule, ...]:
    """The rules of a bounce_rules.toml. Raises ValueError that names the rule which is wrong."""
    rules = []
    for number, table in enumerate(tomllib.loads(toml).get("rule", ()), 1):
        try:
            rule = Rule(
                C(table["class"]),
                table["pattern"],
                table["sample"],
                bool(table.get("weak")),
                bool(table.get("certain")),
            )
        except (KeyError, ValueError) as error:
            raise ValueError(f"bounce rule {number}: {error}") from error
        if rule.bounce_class not in _RANK:
            raise ValueError(f"bounce rule {number}: class {rule.bounce_class} can't be told from text")
        rules.append(rule)
    return tuple(rules)


@functools.cache
def shipped() -> Classifier:
    """The classifier of the shipped rules, built at first use."""
    text = importlib.resources.files("config").joinpath("bounce_rules.toml").read_text(encoding="utf-8")
    return Classifier(parse_rules(text))


# What names a person or a machine is no evidence: the rules would find "spam@…" and "quota.example.com". Only the names
# of blocklists are. Nor are the codes that open each line of a long reply, in the middle of its sentences, nor the
# words that IronPort puts before any reply.
_NAME = re.compile(r"[^\s<>()\[\],;\"'@:]*@[^\s<>()\[\],;\"'@:]+(?::(?=\s|$))?")
_HOST = re.compile(
    r"((?:[<(\[\"']|[\w-]{1,20}[=;])*)(?:[\w-]{1,63}\.){1,10}(?:[a-z]{2,18}|[A-Z]{2,6}|xn--[\w-]{1,59})"
    r"((?:\[[\w.:]*\])?(?::\d{1,5})?[.:,;)\]>'\"]*)$"
)
_KNOWN_NAMES = re.compile(
    r"\.google\.|proofpoint|spamhaus|spamcop|sorbs|barracuda|uceprotect|abuseat|spamrats|surbl|uribl|invaluement|mailspike|rbl|dnsbl",
    re.I,
)
_LINE_CODE = re.compile(r"[245]\d\d(?<![^ ]\d\d\d)[- ][245]\.\d{1,3}\.\d{1,3} ")
_IRONPORT = re.compile(r" - unknown address error\b", re.IGNORECASE)
_WORD_CHARACTERS = 200


def _essence(text: str) -> str:
    words = [_anonymous(word) if "@" in word or "." in word else word for word in text[:TEXT_CHARACTERS].split()]
    essence = " ".join(words)
    if "nknown address error" in essence:
        essence = _IRONPORT.sub(" ", essence)
    first = _LINE_CODE.search(essence)
    return essence if first is None else essence[: first.end()] + _LINE_CODE.sub("", essence[first.end() :])


def _anonymous(word: str) -> str:
    """`word` without the name in it. Word by word and bounded: the patterns take the square of a word's length."""
    word = word[:_WORD_CHARACTERS]
    if "@" in word:
        return _NAME.sub("<address>", word)
    if _KNOWN_NAMES.search(word):
        return word
    if "://" in word:
        return "<url>"
    match = _HOST.match(word)
    return f"{match.group(1)}<host>{match.group(2)}" if match else word
