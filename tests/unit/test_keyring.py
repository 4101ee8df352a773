"""Master keys: what is derived from them, what they seal, and the file that must never be lost or overwritten."""

import os
from pathlib import Path

import pytest

from config.keyring import Keyring, KeyringError

ONE, TWO = bytes(range(32)), bytes(range(32, 64))


def test_what_is_sealed_opens_for_its_purpose_only() -> None:
    ring = Keyring({1: ONE})
    sealed = ring.seal("campaign", b"secret")
    assert ring.open("campaign", sealed) == b"secret"
    assert ring.seal("campaign", b"secret") != sealed
    assert b"secret" not in sealed
    for purpose, value in (("dkim", sealed), ("campaign", sealed[:-1]), ("campaign", b""), ("campaign", sealed[:5])):
        with pytest.raises(KeyringError):
            ring.open(purpose, value)


@pytest.mark.parametrize("place", [0, 1, 12, 13, -1])
def test_a_changed_octet_is_noticed(place: int) -> None:
    ring = Keyring({1: ONE})
    sealed = bytearray(ring.seal("x", b"secret"))
    sealed[place] ^= 2
    with pytest.raises(KeyringError):
        ring.open("x", bytes(sealed))


def test_a_rotation_keeps_what_is_old_readable_and_digests_the_same() -> None:
    before, after = Keyring({1: ONE}), Keyring({1: ONE, 2: TWO})
    assert after.open("x", before.seal("x", b"old")) == b"old"
    assert (after.current_id, after.seal("x", b"")[0]) == (2, 2)
    assert after.digest_key == before.digest_key
    assert after.check_value == before.check_value
    assert after.token_key(1) == before.token_key(1)
    with pytest.raises(KeyringError, match="not in the key file"):
        before.open("x", after.seal("x", b"new"))


def test_keys_for_different_ends_are_different() -> None:
    ring = Keyring({1: ONE, 2: TWO})
    derived = [ring.digest_key, ring.token_key(1), ring.token_key(2), ring.check_value]
    assert len({*derived, ONE, TWO}) == 6
    assert [len(each) for each in derived] == [32, 32, 32, 16]
    with pytest.raises(KeyError):
        ring.token_key(3)


def test_derivation_never_changes() -> None:
    """Suppressions are found by these for ever: another value here would forget every one of them."""
    ring = Keyring({1: ONE})
    assert ring.digest_key.hex() == "9770b85dd43c69d1716898c6749da20c2b60e0c42c9185657ea60cbdaeb8eb3e"
    assert ring.token_key(1).hex() == "455841b18bd2690c5f2da26bcac3457c51e0e2a8a8336ad520754b693e00ecf6"


@pytest.mark.parametrize("masters", [{}, {0: ONE}, {32: ONE}, {1: ONE[:31]}, {1: b""}])
def test_wrong_keys_are_refused(masters: dict[int, bytes]) -> None:
    with pytest.raises(KeyringError):
        Keyring(masters)


def test_the_file_comes_back_and_is_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "master.key"
    Keyring({3: ONE, 1: TWO}).save(path)
    assert path.stat().st_mode & 0o777 == 0o600
    loaded = Keyring.load(path)
    assert (loaded.current_id, loaded.digest_key) == (3, Keyring({1: TWO}).digest_key)
    assert [each.name for each in tmp_path.iterdir()] == ["master.key"]


def test_a_key_file_is_never_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "master.key"
    Keyring({1: ONE}).save(path)
    Keyring({1: TWO}).save(path)
    assert Keyring.load(path).digest_key == Keyring({1: ONE}).digest_key
    assert len(list(tmp_path.iterdir())) == 1


def test_what_a_crash_left_is_not_in_the_way(tmp_path: Path) -> None:
    path = tmp_path / "master.key"
    (tmp_path / f".master.key.{os.getpid()}").write_text("half a")
    assert Keyring.load_or_create(path).digest_key == Keyring.load_or_create(path).digest_key


def test_the_name_of_a_new_file_is_made_durable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[bool] = []

    def fsync(file: int) -> None:
        synced.append(Path(f"/proc/self/fd/{file}").is_dir())

    monkeypatch.setattr(os, "fsync", fsync)
    Keyring.generate().save(tmp_path / "master.key")
    assert synced == [False, True]


def test_generated_keys_are_not_alike(tmp_path: Path) -> None:
    assert Keyring.generate().digest_key != Keyring.generate().digest_key


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "holds no key"), ("# only a comment\n", "holds no key"), ("1 zz\n", ":1: a line is"),
        ("1\n", ":1: a line is"),
        (f"\n# x\n1 {ONE.hex()} more\n", ":3: a line is"), (f"x {ONE.hex()}\n", ":1: a line is"),
        (f"1 {ONE.hex()[:-2]}\n", "key 1: an id is 1 to 31"), (f"40 {ONE.hex()}\n", "key 40: an id is 1 to 31"),
        (f"1 {ONE.hex()}\n1 {TWO.hex()}\n", ":2: key 1 is there already"), ("\xff", "can't be read"),
    ],
)  # fmt: skip
def test_a_wrong_file_is_named_with_its_line_and_no_key(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "master.key"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(KeyringError) as refused:
        Keyring.load(path)
    assert str(refused.value).startswith(str(path))
    assert said in str(refused.value)
    assert ONE.hex()[:-2] not in str(refused.value)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(KeyringError, match="No such file"):
        Keyring.load(tmp_path / "none")


def test_no_repr_holds_a_key() -> None:
    assert repr(Keyring({1: ONE})) == "Keyring(ids=[1])"
