"""HOLDFOR and HOLDUNTIL of MAIL (RFC 4865)."""

import pytest

from mta.commands import CommandError, parse_mail

NOW = 1_800_000_000.0  # 2027-01-15T08:00:00Z


@pytest.mark.parametrize(
    ("parameter", "release_at"),
    [
        ("", 0.0),
        ("HOLDFOR=60", NOW + 60),
        ("holdfor=0", 0.0),
        ("HOLDUNTIL=2027-01-15T09:00:00Z", NOW + 3_600),
        ("HOLDUNTIL=2027-01-15t10:00:00.5+01:00", NOW + 3_600.5),
        ("HOLDUNTIL=2020-01-01T00:00:00Z", 0.0),
    ],
)
def test_the_time_of_release(parameter: str, release_at: float) -> None:
    assert parse_mail(f"FROM:<news@example.com> {parameter}").release_at(NOW) == release_at


@pytest.mark.parametrize(
    "parameters",
    ["HOLDFOR=-1", "HOLDFOR", "HOLDFOR=1234567890", "HOLDFOR=1 HOLDUNTIL=2027-01-15T09:00:00Z", "HOLDUNTIL=tomorrow",
     "HOLDUNTIL=2027-13-15T09:00:00Z", "HOLDUNTIL=2027-01-15T09:00:00"],
)  # fmt: skip
def test_what_is_no_time_is_refused(parameters: str) -> None:
    with pytest.raises(CommandError, match="501"):
        parse_mail(f"FROM:<news@example.com> {parameters}")
