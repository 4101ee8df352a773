"""Quotations never count, however they are made; nothing raises; what is written is found again."""

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bounce.answer import answer_of
from bounce.own_words import without_quotes
from bounce.wishes import Certainty, wish_of

WORDS = st.text(string.ascii_lowercase + "  ", min_size=1, max_size=60).map(str.strip).filter(bool)
ANY_LINES = st.lists(st.text(max_size=80), max_size=30).map("\n".join)


def _behind_marks(quote: str) -> str:
    return "On Mon, Feb 3, 2025 at 10:11 ACME wrote:\n" + "\n".join(f"> {line}" for line in quote.split("\n"))


def _outlook(quote: str) -> str:
    return f"From: ACME\nSent: Monday\nTo: Anna\nSubject: News\n\n{quote}"


def _ruled(quote: str) -> str:
    return f"-----Original Message-----\n{quote}"


@pytest.mark.parametrize("program", [_behind_marks, _outlook, _ruled])
@given(own=st.lists(WORDS, min_size=1, max_size=5).map("\n".join), quote=ANY_LINES)
def test_what_is_written_above_a_quotation_is_all_that_counts(program: object, own: str, quote: str) -> None:
    assert callable(program)
    assert without_quotes(f"{own}\n\n{program(quote)}") == own


@given(ANY_LINES, st.sampled_from(["unsubscribe", "Bitte abmelden", "me désabonner", "baja", "stop"]))
def test_a_wish_in_a_quotation_is_none_of_the_author(own: str, wish: str) -> None:
    alone = wish_of("Re: News", without_quotes(own))
    quoted = wish_of("Re: News", without_quotes(f"{own}\n{_behind_marks(wish)}"))
    assert quoted == alone or alone.certainty is not Certainty.NO


@given(st.sampled_from(["unsubscribe", "Bitte abmelden", "me désabonner", "darme de baja"]), WORDS)
def test_a_strange_word_beside_a_wish_makes_it_less_than_certain(wish: str, other: str) -> None:
    assert wish_of("Re: News", f"{wish} zxq{other.replace(' ', '')}").certainty is not Certainty.CERTAIN


@given(st.binary(max_size=2_000))
def test_whatever_comes_is_read(content: bytes) -> None:
    answer_of(content)


@given(ANY_LINES)
def test_whatever_is_written_is_read(own: str) -> None:
    wish_of(own, without_quotes(own), own)
