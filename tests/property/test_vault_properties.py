"""What is sealed opens as it was, with its own key, in its own place, and nowhere else."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mta.vault import Address, CampaignKey, Envelope, VaultError

KEY, OTHER = CampaignKey(bytes(32)), CampaignKey(bytes([1]) * 32)
ids = st.integers(0, 2**63 - 1)
text = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
envelopes = st.builds(Envelope, text, text, text, st.booleans(), st.booleans(), st.booleans())
addresses = st.builds(Address, text, text, text)


@given(ids, st.binary(max_size=2_000))
def test_content_comes_back(message_id: int, raw: bytes) -> None:
    assert KEY.open_content(message_id, KEY.seal_content(message_id, raw)) == raw


@given(ids, envelopes)
def test_envelopes_come_back(message_id: int, envelope: Envelope) -> None:
    assert KEY.open_envelope(message_id, KEY.seal_envelope(message_id, envelope)) == envelope


@given(ids, st.integers(0, 2**31 - 1), addresses)
def test_addresses_come_back(message_id: int, ordinal: int, address: Address) -> None:
    assert KEY.open_address(message_id, ordinal, KEY.seal_address(message_id, ordinal, address)) == address


@given(ids, ids, st.integers(0, 9), st.integers(0, 9), addresses)
def test_no_ciphertext_opens_in_another_place(one: int, other: int, here: int, there: int, address: Address) -> None:
    sealed = KEY.seal_address(one, here, address)
    if (one, here) != (other, there):
        with pytest.raises(VaultError):
            KEY.open_address(other, there, sealed)
    for opened in (KEY.open_envelope, KEY.open_content):
        with pytest.raises(VaultError):
            opened(one, sealed)
    with pytest.raises(VaultError):
        OTHER.open_address(one, here, sealed)


@given(ids, st.binary(max_size=200), st.integers(0, 10_000), st.integers(1, 255))
def test_a_changed_octet_is_noticed(message_id: int, raw: bytes, place: int, change: int) -> None:
    sealed = bytearray(KEY.seal_content(message_id, raw))
    sealed[place % len(sealed)] ^= change
    with pytest.raises(VaultError):
        KEY.open_content(message_id, bytes(sealed))


@given(ids, st.binary(max_size=40))
def test_no_other_bytes_open(message_id: int, noise: bytes) -> None:
    with pytest.raises(VaultError):
        KEY.open_content(message_id, noise)


def test_the_same_is_never_sealed_the_same() -> None:
    assert KEY.seal_content(1, b"x") != KEY.seal_content(1, b"x")


def test_no_repr_holds_an_address() -> None:
    shown = repr(Envelope("anna@example.net")) + repr(Address("anna@example.net", "", "rfc822;anna@example.net"))
    assert "anna" not in shown
