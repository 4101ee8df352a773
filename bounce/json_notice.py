"""Bounces and complaints as JSON: what Amazon SES has SNS mail to an address. Pure; anything else gives None."""

import json
from typing import Any

from bounce.classify import shipped
from bounce.complaints import gravest
from bounce.fields import address_in, reply_code, status
from bounce.outcome import Action, BounceClass
from bounce.patterns import sayable
from bounce.reading import Kind, Recipient, RecognisedBy

_KINDS = {"bounce": Kind.BOUNCE, "complaint": Kind.COMPLAINT, "delivery": Kind.RECEIPT, "deliverydelay": Kind.DELAY}
_ACTIONS = {Kind.BOUNCE: Action.FAILED, Kind.RECEIPT: Action.DELIVERED, Kind.DELAY: Action.DELAYED}
_MAX_CHARACTERS = 64 * 1024


def sns_notice(text: str) -> tuple[Kind, str, list[Recipient]] | None:
    """Kind, feedback type and recipients of a notification, None where `text` is none."""
    start = text.find("{")
    if start < 0 or start > 200 or ("otificationType" not in text and "eventType" not in text):
        return None
    found = _decoded(text[start:_MAX_CHARACTERS])
    if isinstance(found.get("Message"), str):
        found = _decoded(found["Message"])
    name = str(found.get("notificationType") or found.get("eventType") or "").lower()
    kind = _KINDS.get(name)
    if kind is None:
        return None
    details = found.get("deliveryDelay" if kind is Kind.DELAY else name)
    details = details if isinstance(details, dict) else {}
    feedback = str(details.get("complaintFeedbackType") or "abuse").lower() if kind is Kind.COMPLAINT else ""
    if feedback:
        kind, _ = gravest([feedback])
    return kind, feedback, [_recipient(person, kind, details) for person in _people(details)]


def _decoded(text: str) -> dict[str, Any]:
    # Mail gateways wrap long lines: a JSON string can't hold a bare line end.
    try:
        found, _end = json.JSONDecoder(strict=False).raw_decode(text.replace("\n", "").strip())
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _people(details: dict[str, Any]) -> list[dict[str, Any]]:
    for name in ("bouncedRecipients", "complainedRecipients", "delayedRecipients", "recipients"):
        people = details.get(name)
        if isinstance(people, list):
            return [person if isinstance(person, dict) else {"emailAddress": str(person)} for person in people[:1000]]
    return []


def _recipient(person: dict[str, Any], kind: Kind, details: dict[str, Any]) -> Recipient:
    diagnostic = sayable(str(person.get("diagnosticCode") or details.get("smtpResponse") or "")).removeprefix("smtp; ")
    code = status(str(person.get("status") or "")) or status(diagnostic)
    cause = shipped().cause(diagnostic, code, reply_code(diagnostic))
    failed = kind is Kind.BOUNCE
    return Recipient(
        address=address_in(sayable(str(person.get("emailAddress") or ""))),
        action=_ACTIONS.get(kind),
        status=code,
        reply_code=reply_code(diagnostic),
        remote_mta="",
        diagnostic=diagnostic[:4000],
        bounce_class=cause.bounce_class if failed or kind is Kind.DELAY else BounceClass.NONE,
        permanent=failed and details.get("bounceType") == "Permanent" and not code.startswith("4"),
        recognised_by=RecognisedBy.REPORT,
        certain=kind in {Kind.COMPLAINT, Kind.OPT_OUT} or (failed and code[1:] in {".1.1", ".1.2", ".1.10"}),
    )
