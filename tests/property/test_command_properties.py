"""Whatever a client writes after MAIL or RCPT, the answer is a CommandError or a value that can't do harm."""

from hypothesis import example, given
from hypothesis import strategies as st

from mta.commands import CommandError, check_address, parse_mail, parse_rcpt
from suppression.digest import normalise

ANY = st.text(st.characters(), max_size=60)  # surrogates, controls and all
WORDS = st.sampled_from(
    ["a", "b@example.net", "@", "<", ">", " ", '"', "\\", "\r", "\n", "\0", "ü", ":", "[", "]", "IPv6:", "::1", ".",
     "=", "SIZE", "1", "BODY=8BITMIME", "SMTPUTF8", "RET=FULL", "ENVID=", "NOTIFY=", "NEVER", "ORCPT=rfc822;", "+41",
     ";", "\x85", "\u2028"]
)  # fmt: skip
PIECES = st.lists(WORDS, max_size=14).map("".join)
ADDRESSES = st.builds("{}@{}".format, PIECES | ANY, PIECES | ANY)


def harmless(address: str) -> None:
    """What goes between angle brackets on the way to a peer ends where it should."""
    assert not {"\r", "\n", "\0"}.intersection(address)
    assert address.isprintable()
    local, _, domain = address.rpartition("@")
    if not (local[0] == local[-1] == '"'):
        assert not set('<> "\\(),:;@[]').intersection(local)
    assert not set('<> "\\').intersection(domain)
    address.encode("utf-8")
    normalise(address)


@given(ANY | PIECES | st.builds("FROM:<{}>{}".format, ADDRESSES, PIECES | ANY))
@example("FROM:<@:>")
def test_mail_is_read_or_refused(argument: str) -> None:
    try:
        mail = parse_mail(argument)
    except CommandError as error:
        refused_well(error)
        return
    assert mail.ret in {"", "FULL", "HDRS"}
    assert mail.envid.isascii()
    assert mail.size >= 0
    if mail.sender:
        assert mail.smtputf8 or mail.sender.isascii()
        harmless(mail.sender)
    else:
        assert "<>" in argument


@given(ANY | PIECES | st.builds("TO:<{}>{}".format, ADDRESSES, PIECES | ANY), st.booleans())
def test_rcpt_is_read_or_refused(argument: str, smtputf8: bool) -> None:
    try:
        rcpt = parse_rcpt(argument, smtputf8=smtputf8)
    except CommandError as error:
        refused_well(error)
        return
    assert smtputf8 or rcpt.recipient.isascii()
    assert set(rcpt.notify.split(",")) <= {"", "NEVER", "SUCCESS", "FAILURE", "DELAY"}
    assert not any(character.isspace() or character < " " for character in rcpt.orcpt)
    harmless(rcpt.recipient)


@given(ADDRESSES, st.booleans())
@example('"\r\n"@example.net', True)
@example('"\\\n"@example.net', True)
@example("a@example.net\n", False)
def test_an_address_is_taken_as_it_is_or_refused(address: str, smtputf8: bool) -> None:
    try:
        taken = check_address(address, smtputf8=smtputf8)
    except CommandError as error:
        refused_well(error)
        return
    assert taken == address
    harmless(taken)


def refused_well(error: CommandError) -> None:
    assert error.reply[:3].isdigit()
    assert error.reply[0] == "5"
    assert error.reply.isprintable()
    assert error.reply.isascii()
