"""A status page with an hour of made-up values, for tests of the page and for looking at it."""

import math

from metrics.status_page import Chart, Status, Table

NOW = 1_800_000_000.0


def wave(level: float, swing: float, period_seconds: float = 1_700.0) -> list[tuple[float, float]]:
    """An hour of values around a level."""
    times = [NOW - 3_600 + 10 * step for step in range(361)]
    return [(at, max(0.0, level + swing * math.sin(at / period_seconds * 2 * math.pi))) for at in times]


def example() -> Status:
    return Status(
        "mx1.example.net",
        NOW,
        False,
        ["workers are starting"],
        {"accepted / s": "412", "delivered / s": "388", "queued": "12.3 k", "leased": "4 000", "held": "60",
         "watermark age": "0.3 s", "sent after suppression": "0", "workers ready": "1 of 2"},
        [
            Chart("Recipients in and out", (("accepted", wave(400, 120)), ("delivered", wave(380, 90, 1_500))), " / s"),
            Chart("Deferred, bounced, suppressed", (("deferred", wave(12, 9)), ("bounced", wave(3, 3, 900)),
                                                    ("suppressed", wave(0.4, 0.4))), " / s"),
            Chart("Queue", (("queued", wave(12_000, 4_000)), ("leased", wave(4_000, 300)), ("held", wave(60, 0)))),
            Chart("The promise", (("watermark age", wave(0.3, 0.1)), ("in force after", wave(0.01, 0))), " s"),
            Chart("Nothing yet", (("cores", []),)),
        ],
        [
            Table("Campaigns", ("campaign", "queued", "leased", "held", "state"),
                  [("acme/<b>spring</b>", 12_300, 4_000, 0, "running"),
                   ("acme/autumn", 0, 0, 60, "paused by kim since 2027-01-15 08:00:00 UTC: complaints & worse")], ""),
            Table("Orders", ("about", "name", "state"), [], "No orders."),
        ],
    )  # fmt: skip
