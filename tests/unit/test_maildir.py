"""What a listing of the test MX's Maildir makes of odd files."""

from pathlib import Path

import pytest

from mta.maildir import Maildir, content, summary


@pytest.fixture
def maildir(tmp_path: Path) -> Maildir:
    maildir = Maildir(tmp_path)
    maildir.open()
    return maildir


def test_an_absent_maildir_is_empty(tmp_path: Path) -> None:
    found = summary(tmp_path / "nowhere")
    assert (found.messages, found.last) == (0, ())


@pytest.mark.parametrize(
    ("field", "subject"),
    [
        (b"Subject: plain", "plain"),
        (b"SUBJECT: folded\r\n line", "folded line"),
        (b"Subject: \x1b[31mred\x07", "?[31mred?"),
        (b"Subject: =?no-such-charset?q?x?=", "=?no-such-charset?q?x?="),
        (b"Subject: =?utf-8?b?4pyT?= ok", "✓ ok"),
        (b"Subject: " + b"x" * 500, "x" * 200),
        (b"To: b@example.net", ""),
        (b"", ""),
    ],
)
def test_a_subject_is_one_readable_line(tmp_path: Path, maildir: Maildir, field: bytes, subject: str) -> None:
    maildir.store(b"", [b"b@example.net"], field + b"\r\n\r\nbody\r\n")
    assert summary(tmp_path).last[0].subject == subject


def test_the_newest_come_first_and_only_so_many(tmp_path: Path, maildir: Maildir) -> None:
    for number in range(12):
        maildir.store(b"", [b"b@example.net"], b"Subject: %d\r\n\r\n" % number)
    assert [entry.subject for entry in summary(tmp_path, last=3).last] == ["11", "10", "9"]
    assert summary(tmp_path, last=0).last == ()
    assert summary(tmp_path).messages == 12


def test_read_mail_and_foreign_files_count_too(tmp_path: Path, maildir: Maildir) -> None:
    name = maildir.store(b"", [b"b@example.net"], b"\r\nbody\r\n")
    (tmp_path / "new" / name).rename(tmp_path / "cur" / f"{name}:2,S")
    (tmp_path / "new" / "stray").write_bytes(b"no envelope")
    found = summary(tmp_path)
    assert (found.messages, found.recipients, found.size_octets) == (2, 1, 8 + 11)
    assert found.last[0].received_at == 0.0


def test_header_fields_of_the_message_are_no_envelope(tmp_path: Path, maildir: Maildir) -> None:
    message = b"X-Envelope-To: <c@example.net>\r\nSubject: x\r\n\r\n"
    name = maildir.store(b"", [b"b@example.net"], message)
    assert summary(tmp_path).distinct_recipients == 1
    assert content(tmp_path / "new" / name) == message
