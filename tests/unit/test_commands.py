"""MAIL and RCPT as clients write them: what is taken, and the reply to what is not."""

import pytest

from mta.commands import CommandError, Mail, Rcpt, check_address, parse_mail, parse_rcpt


@pytest.mark.parametrize(
    ("argument", "mail"),
    [
        ("FROM:<>", Mail("")),
        ("from: <anna@example.net>", Mail("anna@example.net")),
        ("FROM:<@relay.example.org,@other.example.org:anna@example.net>", Mail("anna@example.net")),
        ("FROM:<a@example.net> SIZE=1000 BODY=8BITMIME", Mail("a@example.net", 1000, eight_bit=True)),
        ("FROM:<a@example.net> body=8bitmime", Mail("a@example.net", eight_bit=True)),
        ("FROM:<ü@example.net> SMTPUTF8", Mail("ü@example.net", smtputf8=True)),
        ("FROM:<a@example.net> RET=hdrs ENVID=QQ+2B314", Mail("a@example.net", ret="HDRS", envid="QQ+2B314")),
        ("FROM:<a@example.net> AUTH=<>", Mail("a@example.net")),
        ('FROM:<"a b\\"c"@example.net>', Mail('"a b\\"c"@example.net')),
        ("FROM:<a@[192.0.2.1]>", Mail("a@[192.0.2.1]")),
        ("FROM:<a@[IPv6:2001:db8::1]>", Mail("a@[IPv6:2001:db8::1]")),
    ],
)
def test_mail_is_read(argument: str, mail: Mail) -> None:
    assert parse_mail(argument) == mail


@pytest.mark.parametrize(
    ("argument", "rcpt"),
    [
        ("TO:<anna@example.net>", Rcpt("anna@example.net")),
        ("TO:<a@example.net> NOTIFY=NEVER", Rcpt("a@example.net", "NEVER")),
        ("TO:<a@example.net> notify=success,delay", Rcpt("a@example.net", "SUCCESS,DELAY")),
        ("TO:<a@example.net> ORCPT=rfc822;b+2Bc@example.org", Rcpt("a@example.net", "", "rfc822;b+2Bc@example.org")),
    ],
)
def test_rcpt_is_read(argument: str, rcpt: Rcpt) -> None:
    assert parse_rcpt(argument, smtputf8=False) == rcpt


@pytest.mark.parametrize(
    ("argument", "reply"),
    [
        ("", "501 5.5.4"), ("<a@example.net>", "501 5.5.4"), ("FROM:a@example.net", "501 5.5.4"),
        ("FROM:<a@example.net", "501 5.5.4"), ('FROM:<"a@example.net>', "501 5.5.4"),
        ("FROM:<a@example.net>SIZE=1", "501 5.5.4"), ("FROM:<a@example.net> SIZE=1 SIZE=2", "501 5.5.4"),
        ("FROM:<a@example.net> SIZE=-1", "501 5.5.4"), ("FROM:<a@example.net> SIZE=x", "501 5.5.4"),
        ("FROM:<a@example.net> SIZE=²", "501 5.5.4"), ("FROM:<a@example.net> SIZE=" + "9" * 21, "501 5.5.4"),
        ("FROM:<a@example.net> SIZE", "501 5.5.4"), ("FROM:<a@example.net> SIZE=", "501 5.5.4"),
        ("FROM:<a@example.net> BODY=BINARYMIME", "501 5.5.4"), ("FROM:<a@example.net> SMTPUTF8=1", "501 5.5.4"),
        ("FROM:<a@example.net> RET=ALL", "501 5.5.4"), ("FROM:<a@example.net> ENVID=a+b", "501 5.5.4"),
        ("FROM:<a@example.net> ENVID=" + "x" * 101, "501 5.5.4"), ("FROM:<a@example.net> X=1", "555 5.5.4"),
        ("FROM:<a@example.net> RET", "501 5.5.4"), ("FROM:<a@example.net> ENVID", "501 5.5.4"),
        ("FROM:<a>", "501 5.1.3"), ("FROM:<@example.net>", "501 5.1.3"), ("FROM:<a@>", "501 5.1.3"),
        ("FROM:<a..b@example.net>", "501 5.1.3"), ("FROM:<.a@example.net>", "501 5.1.3"),
        ("FROM:<a b@example.net>", "501 5.1.3"), ("FROM:<a@exa mple.net>", "501 5.1.3"),
        ("FROM:<a<b@example.net>", "501 5.1.3"), ('FROM:<"a\rb"@example.net>', "501 5.1.3"),
        ('FROM:<"a\\\nb"@example.net>', "501 5.1.3"), ("FROM:<a\0@example.net>", "501 5.1.3"),
        ("FROM:<a@-example.net>", "501 5.1.3"), ("FROM:<a@example.net.>", "501 5.1.3"),
        ("FROM:<ü@example.net>", "553 5.6.7"), ("FROM:<a@exämple.net>", "553 5.6.7"),
        ("FROM:<" + "a" * 65 + "@example.net>", "501 5.1.3"),
        ("FROM:<a@" + "b." * 124 + "example.net>", "501 5.1.3"),
    ],
)  # fmt: skip
def test_wrong_mail_is_refused(argument: str, reply: str) -> None:
    with pytest.raises(CommandError) as refused:
        parse_mail(argument)
    assert refused.value.reply.startswith(reply)


@pytest.mark.parametrize(
    ("argument", "reply"),
    [
        ("TO:<>", "501 5.1.3"), ("TO:<a@example.net> SIZE=1", "555 5.5.4"), ("TO:<Postmaster>", "550 5.1.1"),
        ("TO:<a@example.net> NOTIFY=NEVER,DELAY", "501 5.5.4"), ("TO:<a@example.net> NOTIFY=ALWAYS", "501 5.5.4"),
        ("TO:<a@example.net> NOTIFY=SUCCESS,,DELAY", "501 5.5.4"), ("TO:<a@example.net> ORCPT=b", "501 5.5.4"),
        ("TO:<a@example.net> NOTIFY", "501 5.5.4"), ("TO:<a@example.net> ORCPT", "501 5.5.4"),
        ("TO:<a@example.net> ORCPT=rfc822;" + "x" * 500, "501 5.5.4"), ("FROM:<a@example.net>", "501 5.5.4"),
    ],
)  # fmt: skip
def test_wrong_rcpt_is_refused(argument: str, reply: str) -> None:
    with pytest.raises(CommandError) as refused:
        parse_rcpt(argument, smtputf8=False)
    assert refused.value.reply.startswith(reply)


def test_a_local_part_of_64_octets_fits_and_octets_are_what_is_counted() -> None:
    assert check_address("a" * 64 + "@example.net", smtputf8=False)
    assert check_address("ü" * 32 + "@example.net", smtputf8=True)
    with pytest.raises(CommandError):
        check_address("ü" * 33 + "@example.net", smtputf8=True)


@pytest.mark.parametrize("code_point", [0xD800, 0xDC80, 0xDFFF])
def test_half_a_character_is_no_address(code_point: int) -> None:
    with pytest.raises(CommandError):
        check_address(f"a{chr(code_point)}@example.net", smtputf8=True)


def test_neither_reply_nor_repr_repeats_an_address() -> None:
    with pytest.raises(CommandError) as refused:
        parse_mail("FROM:<secret person@example.net>")
    assert "secret" not in refused.value.reply + repr(refused.value)
    assert "anna" not in repr(parse_mail("FROM:<anna@example.net>")) + repr(Rcpt("anna@example.net", "", "rfc822;anna"))
