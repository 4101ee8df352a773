"""What a person's answer asks for: an end to the mail, perhaps an end to the mail, or anything else.

A wish is certain only when nothing else is said: every sentence is a request, or a greeting, or thanks, or the name of
the author. One word more, a "not" for instance, and it is only possible. The words are data (config/reply_words.toml).
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum

from bounce.own_words import folded
from bounce.patterns import linear
from bounce.vocabulary import reply_words

LANGUAGES = ("en", "de", "fr", "es")
MAX_SENTENCES = 30
MAX_CHARACTERS = 2_000
"""Of what can be certain; whoever writes more has something else to say too."""


class Certainty(IntEnum):
    """How sure it is that an end of the mail is asked for."""

    NO = 0
    PERHAPS = 1
    CERTAIN = 2


@dataclass(frozen=True, slots=True)
class Wish:
    """`everything`: not this list alone, but all mail of the sender. `language`: in which it was said, "" for none."""

    certainty: Certainty
    everything: bool = False
    language: str = ""


NOTHING = Wish(Certainty.NO)
_ADDRESS = re.compile(r"[^\s@<>]{1,64}@[^\s@<>]{1,255}")
_REPLY_SUBJECT = linear(r"(?i)^\s*(?:re|aw|sv|antw|rv|res|ref|tr|wg|fwd?)\s?(?:\[\d+\])?\s?[:\x{ff1a}]")
_SENTENCE_END = re.compile(r"[\n.!?,;:()\u2013\u2014\u2026]+")
_NO_WORD = re.compile(r"[^\w']+|_+")
_CLOSING_SENTENCES = 5


def wish_of(subject: str, own: str, author: str = "") -> Wish:
    """What is asked for by `own` words, or by a Subject that the author wrote too, where there are none.

    `author`: the From field, whose name may stand below the words, and whose address in them.
    """
    if not own.strip():
        own = "" if _REPLY_SUBJECT.search(subject) else subject
    sentences = _sentences(own, author)
    found = _certain(sentences, _names(author)) if sentences and len(own) <= MAX_CHARACTERS else None
    if found is not None:
        return found
    text = "\n".join(sentences)
    for language in LANGUAGES:
        if _MENTION[language].search(text):
            return Wish(Certainty.PERHAPS, language=language)
    return NOTHING


def _sentences(own: str, author: str) -> list[str]:
    """Sentences in folded words. The author's own address is the word "ownaddress", any other one "address"."""
    address = _ADDRESS.search(author)
    mine = address[0].lower() if address else ""
    text = _ADDRESS.sub(lambda m: " ownaddress " if m[0].lower().strip(".,;:!'\"") == mine else " address ", own)
    lines = [line for line in folded(text).split("\n") if not _PROGRAM.search(line.strip())]
    parts = (_NO_WORD.sub(" ", part).strip(" '") for part in _SENTENCE_END.split("\n".join(lines)))
    return [part for part in parts if part]


def _certain(sentences: Sequence[str], names: frozenset[str]) -> Wish | None:
    """The wish, when every sentence is one or says nothing."""
    if len(sentences) > MAX_SENTENCES:
        return None
    language, everything = "", False
    for number, sentence in enumerate(sentences):
        asked = next((each for each in LANGUAGES if _REQUEST[each].search(sentence)), "")
        if asked:
            language = language or asked
            everything = everything or bool(_EVERYTHING[asked].search(sentence))
        elif _CLOSING.search(sentence) and language:
            if _is_signature(sentences[number + 1 :]):
                break
            return None
        elif not (_FILLER.search(sentence) or names.issuperset(sentence.split())):
            return None
    return Wish(Certainty.CERTAIN, everything, language) if language else None


def _is_signature(rest: Sequence[str]) -> bool:
    """What stands below "Regards": a name, perhaps a firm, and nothing that is said."""
    few = len(rest) <= _CLOSING_SENTENCES and all(len(line.split()) <= 4 for line in rest)
    return few and not any(_MENTION[language].search(line) for language in LANGUAGES for line in rest)


def _names(author: str) -> frozenset[str]:
    """The words of a From field, one of which may be what somebody signs with; articles and the like are none."""
    return frozenset(word for word in _NO_WORD.sub(" ", folded(author)).split() if len(word) > 1)


def _any(words: Sequence[str]) -> str:
    return f"(?:{'|'.join(words)})"


def _filled(table: Mapping[str, Sequence[str]], name: str) -> str:
    """The alternatives of a name, with those that they refer to put in."""
    pattern = _any(table[name])
    while (reference := re.search(r"<([a-z]+)>", pattern)) is not None:
        pattern = pattern.replace(reference[0], _any(table[reference[1]]))
    return pattern


def _request(language: str) -> re.Pattern[str]:
    table = reply_words(language)
    polite, request, tail = (_filled(table, name) for name in ("polite", "request", "tail"))
    return linear(f"^(?:{polite} )*{request}(?: {tail})*$")


def _of_all_languages(name: str) -> str:
    return _any([_filled(reply_words(language), name) for language in LANGUAGES])


_REQUEST = {language: _request(language) for language in LANGUAGES}
_EVERYTHING = {language: linear(rf"\b{_filled(reply_words(language), 'everything')}\b") for language in LANGUAGES}
_MENTION = {language: linear(rf"(?m){_filled(reply_words(language), 'mention')}") for language in LANGUAGES}
_FILLER = linear(rf"^{_of_all_languages('filler')}(?: {_of_all_languages('filler')})*$")
_CLOSING = linear(rf"^{_of_all_languages('closing')}$")
_PROGRAM = linear(rf"^{_any(reply_words('quotation')['signature'])}")
