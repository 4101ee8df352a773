"""Properties of digests and tokens over arbitrary input."""

import hashlib

from hypothesis import assume, given
from hypothesis import strategies as st

from suppression.digest import _PLAIN, AddressError, Digest, Scope, _normal_address, normalise
from suppression.tokens import Purpose, Token, TokenError, Tokens

ids = st.integers(0, 2**31 - 1)
int64 = st.integers(-(2**63), 2**63 - 1)
tokens_said = st.builds(Token, st.sampled_from(Purpose), ids, ids, ids, int64, int64)


class Keys:
    """Every key id is known."""

    current_id = 31

    def token_key(self, key_id: int) -> bytes:
        return hashlib.sha256(bytes((key_id,))).digest()


TOKENS = Tokens(Keys())
DIGEST = Digest(bytes(32))


@given(tokens_said)
def test_every_token_reads_as_what_was_issued(token: Token) -> None:
    text = TOKENS.issue(token)
    assert TOKENS.read(text) == token
    assert TOKENS.read(text.upper()) == token


@given(tokens_said, tokens_said)
def test_different_tokens_have_different_texts(one: Token, other: Token) -> None:
    assert (TOKENS.issue(one) == TOKENS.issue(other)) == (one == other)


@given(st.text(max_size=80) | st.from_regex("[a-z2-7]{63}", fullmatch=True))
def test_no_text_that_was_not_issued_is_a_token(text: str) -> None:
    try:
        TOKENS.read(text)
    except TokenError:
        return
    raise AssertionError("a forgery was accepted")


@given(st.text(max_size=40), st.text(max_size=40))
def test_normalisation_is_stable_and_refuses_in_one_way_only(local: str, domain: str) -> None:
    try:
        normal = normalise(f"{local}@{domain}")
    except AddressError:
        return
    assert normalise(normal) == normal
    assert DIGEST.person(f"{local}@{domain}") == DIGEST.person(normal)


@given(st.from_regex(r"[a-zA-Z0-9.+_-]{1,30}@[a-zA-Z0-9-]{1,20}\.example\.com", fullmatch=True))
def test_case_never_makes_two_persons(address: str) -> None:
    assert DIGEST.person(address) == DIGEST.person(address.upper()) == DIGEST.person(address.lower())


@given(int64, ids, ids, ids, ids)
def test_another_list_or_tenant_is_another_key(
    person: int, tenant: int, listed: int, other_tenant: int, other: int
) -> None:
    assume((tenant, listed) != (other_tenant, other))
    assert DIGEST.key(Scope.LIST, person, tenant, listed) != DIGEST.key(Scope.LIST, person, other_tenant, other)


@given(int64, ids, ids)
def test_keys_are_signed_64_bit_with_the_lowest_bit_clear(person: int, tenant: int, listed: int) -> None:
    for key in DIGEST.keys(person, tenant, listed):
        assert -(2**63) <= key < 2**63
        assert key & 1 == 0


@given(st.from_regex(_PLAIN, fullmatch=True))
def test_plain_addresses_have_the_normal_form_of_all_others(address: str) -> None:
    assert normalise(address) == _normal_address(address)
