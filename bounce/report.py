"""`heed classify`: what messages in files, mboxes, Maildirs or on standard input are, and what Heed would do.

Nothing is stored and no database is asked, so that tokens can't be checked: `suppress` says what an authentic message
would lead to. Addresses appear in full, as they are the caller's own files. OSError for what can't be read.
"""

import argparse
import json
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from bounce.patterns import sayable
from bounce.policy import Policy, Step
from bounce.reader import read
from bounce.reading import Reading

_MBOX_FROM = re.compile(rb"(?:^|\n)From [^\n]{1,300}\d{4}[^\n]{0,40}\n")
_POLICY = Policy()
_READ_BYTES = 1 << 30


def classify_paths(paths: Iterable[str]) -> Iterator[dict[str, Any]]:
    """One dictionary a message: file, kind, feedback_type, recipients. Values are plain, and can be said in UTF-8."""
    for path in paths:
        for name, message in messages(path):
            yield describe(name, read(message))


def describe(name: str, reading: Reading, policy: Policy | None = None) -> dict[str, Any]:
    """A reading as plain values, with the policy's decision for each recipient."""
    policy = policy or _POLICY
    recipients = []
    for recipient in reading.recipients:
        decision = policy.of_report(reading.kind, recipient, authentic=True)
        recipients.append(
            {
                "address": recipient.address,
                "action": str(recipient.action or ""),
                "status": recipient.status,
                "reply_code": recipient.reply_code,
                "class": str(recipient.bounce_class),
                "permanent": recipient.permanent,
                "suppress": decision.step is Step.SUPPRESS,
                "reason": decision.reason,
            },
        )
    # A file's name may hold any bytes.
    return {
        "file": sayable(name),
        "kind": str(reading.kind),
        "feedback_type": reading.feedback_type,
        "recipients": recipients,
    }


def messages(path: str) -> Iterator[tuple[str, bytes]]:
    """(name, message) for what is at `path`: a file, an mbox, a Maildir, or "-"."""
    if path == "-":
        yield from _from_file("-", sys.stdin.buffer.read(_READ_BYTES))
        return
    place = Path(path)
    if not place.is_dir():
        yield from _from_file(path, place.read_bytes())
        return
    folders = [place / name for name in ("cur", "new") if (place / name).is_dir()] or [place]
    for folder in folders:
        for file in sorted(file for file in folder.iterdir() if file.is_file() and not file.name.startswith(".")):
            yield from _from_file(str(file), file.read_bytes())


def _from_file(name: str, data: bytes) -> Iterator[tuple[str, bytes]]:
    """The one message in `data`, or all of an mbox, named "file:1", "file:2" …"""
    starts = _mbox_starts(data)
    if len(starts) < 2:
        yield name, data
        return
    for number, start in enumerate(starts, 1):
        end = starts[number] if number < len(starts) else len(data)
        yield f"{name}:{number}", data[start:end]


def _mbox_starts(data: bytes) -> list[int]:
    """Offsets of the mbox separator lines: only where the file starts with one, and only after an empty line."""
    if not data.startswith(b"From ") or not _MBOX_FROM.match(data):
        return []
    starts = [0]
    for match in _MBOX_FROM.finditer(data, 1):
        start = match.start() + 1
        if data[max(start - 2, 0) : start] in {b"\n\n", b"\r\n"} and _is_header(data[match.end() : match.end() + 80]):
            starts.append(start)
    return starts


def _is_header(text: bytes) -> bool:
    return bool(re.match(rb">?[!-9;-~]{1,60}[ \t]*:|>?From ", text))


def main(arguments: list[str] | None = None) -> int:
    """The same without the rest of Heed: python -m bounce.report [--json] FILE…"""
    parser = argparse.ArgumentParser(description="Say what messages are, and what Heed would do.")
    parser.add_argument("files", nargs="+", help="a message, an mbox, a Maildir, or - for standard input")
    parser.add_argument("--json", action="store_true", help="one JSON object a message")
    options = parser.parse_args(arguments)
    for found in classify_paths(options.files):
        sys.stdout.write(json.dumps(found, ensure_ascii=False) + "\n" if options.json else _table(found))
    return 0


def _table(found: dict[str, Any]) -> str:
    lines = [f"{found['file']}: {found['kind']} {found['feedback_type']}".rstrip()]
    for recipient in found["recipients"]:
        said = " ".join(str(recipient[name]) for name in ("action", "status", "reply_code", "class") if recipient[name])
        lines.append(f"    {recipient['address'] or '(address withheld)'}  {said}  {recipient['reason']}")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
