"""`heed classify`: files, mboxes, Maildirs and standard input."""

import io
import json
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bounce.reader import read
from bounce.report import classify_paths, describe, main
from tests.support.bounces import Failed, bounce

MESSAGE = bounce([Failed()])
KEYS = {"address", "action", "status", "reply_code", "class", "permanent", "suppress", "reason"}


def test_a_file(tmp_path: Path) -> None:
    file = tmp_path / "one.eml"
    file.write_bytes(MESSAGE)
    (found,) = classify_paths([str(file)])
    assert (found["file"], found["kind"], found["feedback_type"]) == (str(file), "bounce", "")
    (recipient,) = found["recipients"]
    assert set(found) == {"file", "kind", "feedback_type", "recipients"}
    assert set(recipient) == KEYS
    assert (recipient["address"], recipient["class"], recipient["suppress"]) == (Failed().address, "unknown-user", True)


def test_an_mbox_and_only_an_mbox_is_parted(tmp_path: Path) -> None:
    line = b"From MAILER-DAEMON Mon Mar  2 10:00:00 2026\n"
    mbox = tmp_path / "mbox"
    mbox.write_bytes(
        line + MESSAGE + b"\n" + line + b"From: ann@example.com\nSubject: hello\n\nhello\n\nFrom here on, no date.\n"
    )
    assert [(found["file"], found["kind"]) for found in classify_paths([str(mbox)])] == [
        (f"{mbox}:1", "bounce"),
        (f"{mbox}:2", "other"),
    ]


def test_a_maildir_and_a_folder(tmp_path: Path) -> None:
    for folder in ("cur", "new", "tmp"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "1").write_bytes(MESSAGE)
    assert len(list(classify_paths([str(tmp_path)]))) == 2
    assert len(list(classify_paths([str(tmp_path / "tmp")]))) == 1


def test_standard_input_and_json(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    class Standard:
        buffer = io.BytesIO(MESSAGE)

    monkeypatch.setattr("sys.stdin", Standard)
    assert main(["--json", "-"]) == 0
    assert json.loads(capsys.readouterr().out)["kind"] == "bounce"


def test_the_table_says_what_and_why(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "one.eml"
    file.write_bytes(bounce([Failed(status="5.2.2", reply="552 5.2.2 mailbox full")]))
    assert main([str(file)]) == 0
    out = capsys.readouterr().out
    assert "bounce" in out
    assert "mailbox-full (5.2.2): 1 of 3 in 30 days" in out


def test_a_name_that_is_no_text(tmp_path: Path) -> None:
    file = tmp_path / os.fsdecode(b"\xff.eml")
    file.write_bytes(MESSAGE)
    (found,) = classify_paths([str(file)])
    assert found["file"].encode().endswith(b"?.eml")


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=400) | st.text(max_size=400).map(lambda text: text.encode("utf-8", "replace")))
def test_whatever_is_in_a_message_can_be_written_as_json(noise: bytes) -> None:
    for message in (noise, MESSAGE.replace(b"No such user", noise), MESSAGE.replace(b"anna.person", noise)):
        json.dumps(describe("x", read(message)), ensure_ascii=False).encode()


def test_a_missing_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="nowhere"):
        list(classify_paths([str(tmp_path / "nowhere")]))
