"""The door to google-re2: patterns whose time is linear in the text, whoever wrote the text.

Everything that a stranger's message is matched against goes through here. Text may hold lone surrogates; they are
replaced, as re2 works on UTF-8. A pattern that re2 refuses raises ValueError where it is built, not where it is used.
re2 has no stubs but the interface of `re`, so that a compiled pattern goes by the type `re.Pattern[str]`.
"""

import re
from collections.abc import Sequence
from typing import cast

import re2

_SET_MEMORY_BYTES = 64 << 20
"""For the automaton of a whole set: beyond it re2 would fall back to its slow way."""


def linear(pattern: str) -> re.Pattern[str]:
    """`pattern` compiled; ignoring case is up to the pattern ("(?i)")."""
    try:
        return cast("re.Pattern[str]", re2.compile(pattern, _options()))  # type: ignore[no-untyped-call]
    except re2.error as error:
        raise ValueError(f"pattern {pattern!r}: {error}") from error


def sayable(text: str) -> str:
    """`text` without what UTF-8 can't say (lone surrogates become "?")."""
    return text.encode("utf-8", "replace").decode("utf-8")


class Finder:
    """One pattern that is only asked whether it is there; case is ignored. Half the time of `linear(…).search`."""

    def __init__(self, pattern: str) -> None:
        self._set = PatternSet([pattern])

    def search(self, text: str) -> bool:
        """Whether the pattern is found somewhere in `text`."""
        return self._set.found(text)


class PatternSet:
    """Many patterns, matched in one pass over the text; case is ignored, "." matches line ends too."""

    def __init__(self, patterns: Sequence[str]) -> None:
        options = _options()
        options.max_mem = _SET_MEMORY_BYTES
        self._set = re2.Set.SearchSet(options)  # type: ignore[no-untyped-call]
        for pattern in patterns:
            try:
                self._set.Add("(?is)" + pattern)
            except re2.error as error:
                raise ValueError(f"pattern {pattern!r}: {error}") from error
        if patterns:
            self._set.Compile()
        self._empty = not patterns

    def matches(self, text: str) -> list[int]:
        """The indexes of all patterns found somewhere in `text`, in rising order."""
        return [] if self._empty else sorted(self._set.Match(text.encode("utf-8", "replace")) or ())

    def found(self, text: str) -> bool:
        """Whether any pattern is found somewhere in `text`."""
        return not self._empty and bool(self._set.Match(text.encode("utf-8", "replace")))


def _options() -> re2.Options:
    options = re2.Options()
    options.log_errors = False
    return options
