"""Known answers of the tokens: they are in millions of mailboxes and must be read for ever."""

import base64
import hmac
import os
import struct
from unittest import mock

import pytest

from suppression.tokens import TOKEN_CHARACTERS, Purpose, Token, TokenError, Tokens, token_id

TOKEN = Token(Purpose.ONE_CLICK, tenant_id=7, list_id=9, campaign_id=11, person=-5, message_id=1 << 40)
TEXT = "slxnih3rboi3krredidzljbohp55kykzfxccoimv76ngebfy447rosb5dvayjoi"


class Keys:
    """A keyring of known keys: key n is 32 times the byte n, except for key 3."""

    def __init__(self, current_id: int = 3, known: range = range(1, 32)) -> None:
        self.current_id = current_id
        self.known = known

    def token_key(self, key_id: int) -> bytes:
        if key_id not in self.known:
            raise KeyError(key_id)
        return bytes(range(32)) if key_id == 3 else bytes((key_id,)) * 32


def test_known_answer() -> None:
    assert Tokens(Keys()).issue(TOKEN) == TEXT
    assert Tokens(Keys()).read(TEXT) == TOKEN


def test_a_token_fits_a_local_part_and_survives_a_change_of_case() -> None:
    tokens = Tokens(Keys())
    assert len(TEXT) == TOKEN_CHARACTERS <= 64
    assert tokens.read(TEXT.upper()) == TOKEN
    assert tokens.read(TEXT.title()) == TOKEN


def test_the_alphabet_is_that_of_rfc_4648() -> None:
    sealed = base64.b32decode(TEXT.upper() + "=")
    assert len(sealed) == 39
    assert sealed[10] == 3 << 3 | Purpose.ONE_CLICK


def test_tokens_outlive_a_rotation_of_the_key() -> None:
    old = Tokens(Keys(current_id=3)).issue(TOKEN)
    new = Tokens(Keys(current_id=4)).issue(TOKEN)
    assert old != new
    after = Tokens(Keys(current_id=4))
    assert after.read(old) == after.read(new) == TOKEN


def test_no_field_can_be_read_without_the_key() -> None:
    other = Tokens(Keys()).issue(TOKEN._replace(message_id=TOKEN.message_id + 1))
    assert sum(mine == theirs for mine, theirs in zip(TEXT, other, strict=True)) < 16


@pytest.mark.parametrize("place", range(TOKEN_CHARACTERS))
def test_one_changed_character_anywhere_is_refused(place: int) -> None:
    changed = TEXT[:place] + ("a" if TEXT[place] != "a" else "b") + TEXT[place + 1 :]
    with pytest.raises(TokenError):
        Tokens(Keys()).read(changed)


@pytest.mark.parametrize(
    "text", ["", "x", TEXT[:-1], TEXT + "a", TEXT[:-1] + "1", TEXT[:-1] + "ä", TEXT + "\n", "a" * 63]
)
def test_what_is_no_token_is_refused_without_quoting_it(text: str) -> None:
    with pytest.raises(TokenError) as caught:
        Tokens(Keys()).read(text)
    assert caught.value.__context__ is None
    assert str(caught.value) in {"not a token", "not a token of ours"}


def test_the_bits_left_over_must_be_clear() -> None:
    last = TEXT[-1]
    alphabet = "abcdefghijklmnopqrstuvwxyz234567"
    assert alphabet.index(last) % 8 == 0
    with pytest.raises(TokenError):
        Tokens(Keys()).read(TEXT[:-1] + alphabet[alphabet.index(last) + 1])


def test_a_token_of_another_installation_is_refused() -> None:
    foreign = Tokens(Keys(current_id=5)).issue(TOKEN)
    with pytest.raises(TokenError):
        Tokens(Keys(known=range(1, 5))).read(foreign)


def test_an_unknown_key_costs_the_same_work_as_a_wrong_tag() -> None:
    """Whoever measures must not learn which key ids exist: both ways compare one tag, in constant time."""
    foreign = Tokens(Keys(current_id=5)).issue(TOKEN)
    damaged = TEXT[:-2] + ("a" if TEXT[-2] != "a" else "b") + TEXT[-1]
    for text in (foreign, damaged):
        with mock.patch("hmac.compare_digest", wraps=hmac.compare_digest) as compared, pytest.raises(TokenError):
            Tokens(Keys(known=range(1, 5))).read(text)
        assert compared.call_count == 1


@pytest.mark.parametrize("purpose", Purpose)
def test_the_purpose_is_bound(purpose: Purpose) -> None:
    tokens = Tokens(Keys())
    assert tokens.read(tokens.issue(TOKEN._replace(purpose=purpose))).purpose is purpose


def test_a_purpose_that_does_not_exist_is_refused() -> None:
    tokens = Tokens(Keys())
    made = tokens.issue(TOKEN._replace(purpose=7))  # type: ignore[arg-type]  # what a later version might issue
    with pytest.raises(TokenError):
        tokens.read(made)


@pytest.mark.parametrize("field", ["tenant_id", "list_id", "campaign_id", "person", "message_id"])
def test_an_id_out_of_range_is_never_cut(field: str) -> None:
    with pytest.raises(struct.error):
        Tokens(Keys()).issue(Token(**{**TOKEN._asdict(), field: 1 << 64}))


def test_the_token_id_names_a_token_and_can_not_be_used_as_one() -> None:
    assert token_id(TEXT.upper()) == TEXT[:16]
    with pytest.raises(TokenError):
        Tokens(Keys()).read(token_id(TEXT) + base64.b32encode(os.urandom(30)).decode()[:47])
