"""What a failure means, and for whom; and that no outcome carries an address."""

import base64
import errno
import socket
import ssl
import urllib.parse

import pytest

from bounce import trouble
from bounce.outcome import DIAGNOSTIC_CHARACTERS, Action, BounceClass, Outcome, Stage, Trouble, redact

PERSON = "Anna.Person+news@example.org"


def reply(stage: Stage, code: int, text: str) -> Outcome:
    return trouble.from_reply(stage, code, text, remote_mta="mx.example.org", recipient=PERSON)


@pytest.mark.parametrize(
    ("stage", "code", "text", "action", "status", "bounce_class", "concerns"),
    [
        (Stage.DOT, 250, "2.0.0 taken", "delivered", "2.0.0", "none", "message"),
        (Stage.RCPT, 550, "5.1.1 no such user", "failed", "5.1.1", "unknown-user", "recipient"),
        (Stage.RCPT, 550, "no such user", "failed", "5.1.1", "unknown-user", "recipient"),
        (Stage.RCPT, 450, "4.2.0 greylisted", "delayed", "4.2.0", "greylisted", "recipient"),
        (Stage.RCPT, 550, "5.7.1 greylisted, try again later", "delayed", "4.7.1", "greylisted", "recipient"),
        (Stage.RCPT, 552, "too many recipients", "delayed", "4.7.0", "rate-limited", "recipient"),
        (Stage.RCPT, 552, "5.2.2 mailbox full", "failed", "5.2.2", "mailbox-full", "recipient"),
        (Stage.RCPT, 554, "5.7.1 blocked using zen.spamhaus.org", "failed", "5.7.1", "reputation", "site"),
        (Stage.RCPT, 451, "4.7.1 hourly message rate limit exceeded", "delayed", "4.7.1", "rate-limited", "site"),
        (
            Stage.RCPT,
            450,
            "4.2.1 the user is receiving mail too quickly",
            "delayed",
            "4.2.1",
            "rate-limited",
            "recipient",
        ),
        (Stage.RCPT, 503, "5.5.1 bad sequence of commands", "delayed", "4.5.1", "system", "session"),
        (Stage.RCPT, 550, "who knows", "failed", "5.0.0", "other", "recipient"),
        (Stage.MAIL, 550, "5.1.8 domain does not exist", "failed", "5.1.8", "policy", "message"),
        (Stage.MAIL, 554, "5.7.1 your IP is on a blocklist", "failed", "5.7.1", "reputation", "site"),
        (Stage.MAIL, 530, "5.7.0 must issue a STARTTLS command first", "delayed", "4.7.0", "tls-required", "site"),
        (Stage.DATA, 554, "5.7.1 looks like spam", "failed", "5.7.1", "content", "message"),
        (Stage.DOT, 552, "5.2.2 the mailbox is full", "failed", "5.2.2", "mailbox-full", "recipient"),
        (Stage.DOT, 451, "4.3.0 temporary failure", "delayed", "4.3.0", "system", "site"),
        (Stage.GREETING, 554, "no service for you", "delayed", "4.7.1", "policy", "site"),
        (Stage.GREETING, 554, "5.7.1 listed at Spamhaus", "delayed", "4.7.1", "reputation", "site"),
        (Stage.EHLO, 550, "5.7.1 denied by policy", "delayed", "4.7.1", "policy", "site"),
        (Stage.RCPT, 421, "4.3.2 closing", "delayed", "4.3.2", "system", "session"),
        (
            Stage.DOT,
            421,
            "4.7.0 unusual rate of unsolicited mail originating from your IP",
            "delayed",
            "4.7.0",
            None,
            "site",
        ),
        (Stage.RSET, 550, "no", "delayed", "4.0.0", "other", "session"),
        (Stage.RCPT, 354, "go ahead", "delayed", "4.5.0", "system", "session"),
        (Stage.RCPT, 0, "", "delayed", "4.5.0", "system", "session"),
        # RFC 2034: the class of the enhanced code must be that of the reply; the reply code rules.
        (Stage.RCPT, 450, "5.1.1 no such user", "delayed", "4.1.1", "unknown-user", "recipient"),
    ],
)
def test_replies(
    stage: Stage, code: int, text: str, action: str, status: str, bounce_class: str | None, concerns: str
) -> None:
    outcome = reply(stage, code, text)
    assert (outcome.action, outcome.status, outcome.trouble) == (action, status, concerns)
    assert outcome.bounce_class == bounce_class or bounce_class is None
    assert outcome.reply_code == code
    assert outcome.permanent == (action == "failed")


@pytest.mark.parametrize(
    ("stage", "error", "status", "bounce_class", "concerns"),
    [
        (Stage.CONNECT, TimeoutError(), "4.4.1", "network", "site"),
        (Stage.DOT, TimeoutError(), "4.4.2", "network", "session"),
        (Stage.CONNECT, ConnectionRefusedError(errno.ECONNREFUSED, "x"), "4.4.1", "network", "site"),
        (Stage.DATA, ConnectionResetError(errno.ECONNRESET, "x"), "4.4.2", "network", "session"),
        (Stage.MAIL, EOFError(), "4.4.2", "network", "session"),
        (Stage.CONNECT, socket.gaierror(-2, "x"), "4.4.3", "network", "site"),
        (Stage.STARTTLS, ssl.SSLError(1, "x"), "4.7.5", "tls-required", "site"),
        (Stage.CONNECT, OSError(errno.EMFILE, "x"), "4.3.1", "system", "site"),
        (Stage.CONNECT, OSError(errno.EINVAL, "x"), "4.4.1", "network", "site"),
        (Stage.DOT, KeyError("anna.person@example.org"), "4.3.0", "system", "session"),
    ],
)
def test_failures_without_a_reply_are_temporary(
    stage: Stage, error: BaseException, status: str, bounce_class: str, concerns: str
) -> None:
    outcome = trouble.from_exception(stage, error, remote_mta="mx.example.org")
    assert (outcome.action, outcome.status, outcome.reply_code) == (Action.DELAYED, status, 0)
    assert (outcome.bounce_class, outcome.trouble) == (bounce_class, concerns)
    assert "example.org" not in outcome.diagnostic


def test_outcomes_of_our_own() -> None:
    assert trouble.null_mx().permanent
    assert trouble.no_such_domain().bounce_class is BounceClass.UNKNOWN_HOST
    assert trouble.suppressed().bounce_class is BounceClass.SUPPRESSED
    assert not trouble.signing("no key").permanent
    assert not trouble.routing("4.4.3", "no answer").permanent
    assert trouble.routing("5.4.6", "ourselves", BounceClass.ROUTING_LOOP).permanent
    last = reply(Stage.RCPT, 450, "4.2.0 greylisted")
    expired = trouble.expired(last)
    assert expired.permanent
    assert (expired.bounce_class, expired.reply_code) == (BounceClass.EXPIRED, 450)
    assert "greylisted" in expired.diagnostic
    assert trouble.expired(None).trouble is Trouble.RECIPIENT


def test_an_outcome_survives_json() -> None:
    outcome = reply(Stage.RCPT, 550, "5.1.1 no such user")
    assert Outcome.from_dict(outcome.as_dict()) == outcome
    with pytest.raises((KeyError, ValueError)):
        Outcome.from_dict({**outcome.as_dict(), "action": "lost"})


@pytest.mark.parametrize(
    "text",
    [
        f"550 <{PERSON}>: unknown",
        f"550 <{PERSON.upper()}>: unknown",
        "550 user ANNA.PERSON unknown",
        f"550 see https://example.com/?rcpt={urllib.parse.quote(PERSON, safe='')}",
        "550 see https://example.com/?rcpt=anna.person%40example.org",
        "550 anna.person+40example.org unknown",
        "550 anna.person=40example.org",
        '550 "Anna Person"@example.org is unknown',
        f"550 {base64.b64encode(PERSON.encode()).decode()}",
        "550 forwarded to someone.else@example.net",
        "550 anna.person&#64;example.org",
        "550 <anna.person@[192.0.2.1]>",
        "550 anna.person\uff20example.org",
    ],
)
def test_no_spelling_of_an_address_gets_through(text: str) -> None:
    told = redact(text, PERSON).lower()
    assert "<address>" in told
    for part in ("anna.person", "someone.else", "@example", "anna person"):
        assert part not in told


@pytest.mark.parametrize("said", ["x@example.net", "someone.else@example.net", f"rcpt={PERSON}&why=1"])
@pytest.mark.parametrize("link", ["550 see http://example.com/b/{}.", "550 see http://example.com/?u={}&v=1", "550 {}"])
def test_nor_does_one_in_base64_whosever_it_is(said: str, link: str) -> None:
    encoded = base64.b64encode(said.encode()).decode()
    for text in (encoded, encoded.rstrip("=")):
        told = redact(link.format(text), PERSON)
        assert "<address>" in told
        assert encoded[:12] not in told


def test_a_queue_id_stays() -> None:
    told = "2.0.0 OK 1750000000 d9443c01a7336si1cf3b2bd2a1234567 - gsmtp, 4XyZab0cDeFgHiJkLmNoPqRsTuV"
    assert redact(told, PERSON) == told


def test_a_diagnostic_is_short_and_printable() -> None:
    told = redact("550 a\r\nb\x00\x1b[31m\ud800" + "x" * 10_000, PERSON)
    assert len(told) <= DIAGNOSTIC_CHARACTERS
    assert told.isprintable()
    # The cut must not leave the half of an address.
    assert "anna" not in redact("y " * 1_995 + PERSON, PERSON)


def test_words_that_contain_a_short_local_part_stay() -> None:
    assert redact("550 unknown user ann at annex", "ann@example.org") == "550 unknown user <address> at annex"


@pytest.mark.parametrize("quoted", ["anna@example.org", "ANNA@elsewhere.example", "someone@elsewhere.example"])
def test_nothing_is_left_around_an_address(quoted: str) -> None:
    assert redact(f"no <{quoted}>: gone", "anna@example.org") == "no <address>: gone"


def test_bytes_that_are_no_text_are_no_error() -> None:
    outcome = reply(Stage.RCPT, 550, b"5.1.1 no such user \xe9\xff".decode("utf-8", "surrogateescape"))
    assert outcome.bounce_class is BounceClass.UNKNOWN_USER
    assert outcome.diagnostic.isprintable()
    redact("\ud800@\udfff", "a\ud800@example.org")


@pytest.mark.parametrize("stage", [Stage.RCPT, Stage.DATA, Stage.DOT])
def test_a_busy_mailbox_is_one_mailbox_and_a_busy_server_all_of_them(stage: Stage) -> None:
    assert reply(stage, 450, "4.2.1 mailbox busy, try again").trouble is Trouble.RECIPIENT
    assert reply(Stage.DOT, 451, "4.3.2 server too busy").trouble is Trouble.SITE
