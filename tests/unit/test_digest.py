"""Known answers of the digests: they are stored for ever, so a change of one of these values loses suppressions."""

import pytest

from suppression.digest import AddressError, Digest, Effect, Kind, Scope, effect_of, normalise

DIGEST = Digest(bytes(range(32)))


@pytest.mark.parametrize(
    ("written", "normal"),
    [
        ("bob@example.com", "bob@example.com"),
        ("Bob@EXAMPLE.Com", "bob@example.com"),
        ("  <bob@example.com> ", "bob@example.com"),
        ("bob@example.com.", "bob@example.com"),
        ('"bob"@example.com', "bob@example.com"),
        ('"Bob.Jones"@example.com', "bob.jones@example.com"),
        ('"bob jones"@example.com', '"bob jones"@example.com'),
        ('"a@b"@example.com', '"a@b"@example.com'),
        ("bob+news@example.com", "bob+news@example.com"),
        ("bob@exämple.example.com", "bob@xn--exmple-cua.example.com"),
        ("bob@EXÄMPLE.example.com", "bob@xn--exmple-cua.example.com"),
        ("bob@XN--exmple-cua.example.com", "bob@xn--exmple-cua.example.com"),
        ("bob@straße.example.com", "bob@xn--strae-oqa.example.com"),
        ("JÜRGEN@example.com", "jürgen@example.com"),
        ("ju\u0308rgen@example.com", "jürgen@example.com"),
        ("bob@under_score.example.com", "bob@under_score.example.com"),
        ("bob@[IPv6:2001:DB8::1]", "bob@[ipv6:2001:db8::1]"),
        ("bob@[192.0.2.1]", "bob@[192.0.2.1]"),
    ],
)
def test_every_spelling_of_an_address_has_one_normal_form(written: str, normal: str) -> None:
    assert normalise(written) == normal
    assert normalise(normal) == normal


@pytest.mark.parametrize(
    "written",
    ["", "bob", "@example.com", "bob@", "bob@.", "a b@example.com", "a@b@example.com", "bob@exa mple.com",
     "bob@example.com\r\nRCPT TO:<x@example.com>", "bob\0@example.com", "a,b@example.com", "x" * 320 + "@example.com"],
)  # fmt: skip
def test_what_can_be_no_address_is_refused_without_quoting_it(written: str) -> None:
    with pytest.raises(AddressError) as caught:
        normalise(written)
    assert str(caught.value) == "not a mail address"
    assert caught.value.__cause__ is None


def test_known_answers() -> None:
    assert DIGEST.person("Some.Body@Example.com") == 8575101273470856759
    assert DIGEST.keys(123456, 7, 9) == (3579492904934194180, 120444510479920274, -48597668027131604)
    assert DIGEST.fingerprint.hex() == "9e775f5490c9259a0523667402f83ca0"


def test_keys_are_those_of_the_scopes_that_apply() -> None:
    person = DIGEST.person("bob@example.com")
    everything, tenant = DIGEST.key(Scope.EVERYTHING, person), DIGEST.key(Scope.TENANT, person, 7)
    on_list, group = DIGEST.key(Scope.LIST, person, 7, 9), DIGEST.key(Scope.GROUP, person, 0, 3)
    assert DIGEST.keys(person, 7, 0) == (everything, tenant)
    assert DIGEST.keys(person, 7, 9) == (everything, tenant, on_list)
    assert DIGEST.keys(person, 7, 9, group_id=3) == (everything, tenant, on_list, group)
    assert len({everything, tenant, on_list, group}) == 4
    assert all(key & 1 == 0 for key in (everything, tenant, on_list, group))


def test_another_key_gives_other_digests() -> None:
    other = Digest(bytes(range(1, 33)))
    assert other.person("bob@example.com") != DIGEST.person("bob@example.com")
    assert other.key(Scope.EVERYTHING, 5) != DIGEST.key(Scope.EVERYTHING, 5)
    assert other.fingerprint != DIGEST.fingerprint


def test_a_short_key_is_refused() -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        Digest(b"short")


@pytest.mark.parametrize("kind", Kind)
@pytest.mark.parametrize("scope", Scope)
def test_only_an_unsubscribe_from_less_than_everything_leaves_transactional_mail_alive(
    scope: Scope, kind: Kind
) -> None:
    lenient = kind is Kind.UNSUBSCRIBE and scope in (Scope.TENANT, Scope.LIST)
    assert effect_of(scope, kind) is (Effect.CAMPAIGN if lenient else Effect.ALL)
