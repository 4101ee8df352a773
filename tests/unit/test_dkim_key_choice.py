"""Which keys sign the mail of a domain."""

import pytest

from mta.dkim_keys import chosen_keys, signing_domains
from mta.signing import ED25519_SHA256, RSA_SHA256


@pytest.mark.parametrize(
    ("domain", "candidates"),
    [
        ("example.com", ["example.com"]),
        ("a.b.example.com", ["a.b.example.com", "b.example.com", "example.com"]),
        ("news.example.co.uk", ["news.example.co.uk", "example.co.uk"]),
        ("co.uk", ["co.uk"]),
        ("localhost", ["localhost"]),
        ("mail.corp.internal", ["mail.corp.internal", "corp.internal"]),
    ],
)
def test_parents_down_to_the_organisational_domain(domain: str, candidates: list[str]) -> None:
    assert signing_domains(domain) == candidates


@pytest.mark.parametrize(
    ("found", "chosen"),
    [
        ([], []),
        ([("example.com", "new", RSA_SHA256), ("example.com", "old", RSA_SHA256)], [0]),
        ([("example.com", "e", ED25519_SHA256), ("example.com", "r", RSA_SHA256)], [1, 0]),
        ([("example.com", "e", ED25519_SHA256), ("a.example.com", "r", RSA_SHA256)], [1]),
        ([("a.example.com", "e", ED25519_SHA256), ("example.com", "r", RSA_SHA256)], [0]),
        ([("example.org", "r", RSA_SHA256)], []),
    ],
)
def test_the_newest_of_each_algorithm_of_the_closest_domain(
    found: list[tuple[str, str, str]], chosen: list[int]
) -> None:
    assert chosen_keys(["a.example.com", "example.com"], found) == chosen
