"""Hands mail to a daemon as an application does; blocking, for a thread."""

import smtplib
from collections.abc import Sequence


def message(subject: str, *, list_name: str | None = "news.example.com", campaign: str | None = None) -> bytes:
    """A small campaign message."""
    fields = ["From: News <news@example.com>", "To: reader@example.net", f"Subject: {subject}"]
    if list_name is not None:
        fields.append(f"List-Id: <{list_name}>")
    if campaign is not None:
        fields.append(f"X-Campaign: {campaign}")
    return "\r\n".join([*fields, "", "Hello.", ""]).encode()


def submit(port: int, recipients: Sequence[str], content: bytes, *, sender: str = "news@example.com") -> dict[str, str]:
    """Submit one message; returns recipient → reply for those that were refused, as smtplib tells them."""
    with smtplib.SMTP("127.0.0.1", port, timeout=30) as client:
        refused = client.sendmail(sender, list(recipients), content)
    return {recipient: f"{code} {text.decode()}" for recipient, (code, text) in refused.items()}
