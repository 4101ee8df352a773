"""The Grafana dashboards, each panel a line: `python -m metrics.dashboards` writes config/grafana/*.json.

Counts of the whole installation are said by every node, and so taken once (max); others are summed over nodes. What may
never have happened yet is shown as 0.
"""

import json
from pathlib import Path
from typing import Any, Final, NamedTuple

PLACE: Final = Path(__file__).parents[1] / "config" / "grafana"
_WIDTH, _HEIGHT, _COLUMNS = 12, 8, 24


class Panel(NamedTuple):
    """A chart: expressions with their legends. unit: as Grafana names it."""

    title: str
    unit: str
    series: tuple[tuple[str, str], ...]
    description: str = ""


def _rate(metric: str, by: str = "", where: str = "") -> str:
    grouping = f" by ({by})" if by else ""
    return f"sum{grouping} (rate({metric}{{{where}}}[$__rate_interval])) or vector(0)".replace("{}", "")


def _quantile(quantile: float, metric: str) -> str:
    return f"histogram_quantile({quantile}, sum by (le) (rate({metric}_bucket[$__rate_interval])))"


def _quantiles(metric: str) -> tuple[tuple[str, str], ...]:
    return tuple((_quantile(q, metric), f"p{q * 100:g}") for q in (0.5, 0.95, 0.99))


DASHBOARDS: Final[dict[str, tuple[str, tuple[Panel, ...]]]] = {
    "overview": (
        "Heed: overview",
        (
            Panel("Recipients in and out", "ops", (
                (_rate("heed_accepted_recipients_total"), "accepted"),
                (_rate("heed_delivered_total"), "delivered"),
                (_rate("heed_bounced_total"), "bounced"),
                (_rate("heed_deferred_total"), "deferred"),
            )),
            Panel("Queue by state", "short", (("max by (state) (heed_queued_recipients)", "{{state}}"),)),
            Panel("Most overdue recipient", "s", (("max(heed_oldest_due_seconds)", "overdue"),)),
            Panel("From 250 to the peer's 250", "s", _quantiles("heed_accept_to_delivery_seconds")),
            Panel("Refused at our listeners", "ops", ((_rate("heed_refused_total", "reason"), "{{reason}}"),)),
            Panel("Connections to sites", "short", (
                ("topk(10, sum by (site) (heed_connections))", "{{site}}"),
            )),
            Panel("Database and workers", "short", (
                ("min(heed_database_up)", "database answers"),
                ("sum(heed_workers)", "workers ready"),
            )),
            Panel("Watermark age", "s", (("max(heed_watermark_age_seconds)", "age"),), "Above 5 s nothing is sent."),
        ),
    ),
    "deliverability": (
        "Heed: deliverability",
        (
            Panel("Attempts by provider", "ops", ((_rate("heed_attempts_total", "provider"), "{{provider}}"),)),
            Panel("Delivered share by provider", "percentunit", ((
                'sum by (provider) (rate(heed_attempts_total{action="delivered"}[$__rate_interval]))'
                " / sum by (provider) (rate(heed_attempts_total[$__rate_interval]))",
                "{{provider}}",
            ),)),
            Panel("Deferred by provider", "ops", (
                (_rate("heed_attempts_total", "provider", 'action="delayed"'), "{{provider}}"),
            )),
            Panel("Bounced by provider", "ops", (
                (_rate("heed_attempts_total", "provider", 'action="failed"'), "{{provider}}"),
            )),
            Panel("Deferrals by class", "ops", ((_rate("heed_deferred_total", "bounce_class"), "{{bounce_class}}"),)),
            Panel("Bounces by class", "ops", ((_rate("heed_bounced_total", "bounce_class"), "{{bounce_class}}"),)),
            Panel("Answers by kind", "ops", ((_rate("heed_answers_total", "kind"), "{{kind}}"),)),
            Panel("Complaints for each delivery", "percentunit", ((
                '(sum(increase(heed_answers_total{kind="complaint"}[1d])) or vector(0))'
                " / clamp_min(sum(increase(heed_delivered_total[1d])) or vector(0), 1)",
                "complaints",
            ),), "Providers act at 0.1 to 0.3 %."),
            Panel("Expired", "ops", ((_rate("heed_expired_total"), "expired"),)),
        ),
    ),
    "promise": (
        "Heed: the promise",
        (
            Panel("Unsubscribe in force after", "s", tuple(
                (f"({expr}) >= 0 or vector(0)", legend)
                for expr, legend in _quantiles("heed_unsubscribe_effective_seconds")
            )),
            Panel("Watermark age", "s", (("max(heed_watermark_age_seconds)", "age"),)),
            Panel("Known of and not in force yet", "short", (("max(heed_suppression_lag_entries)", "entries"),)),
            Panel("Sent after suppression", "short", (
                ("sum(heed_sends_after_suppression_total) or vector(0)", "sent after"),
            ), "Must be 0 for ever."),
            Panel("Deliveries proved against the log", "ops", ((_rate("heed_deliveries_compared_total"), "compared"),)),
            Panel("Canary", "s", (
                ("max(heed_canary_seconds) or vector(0)", "seconds"),
                ("sum(heed_canary_failures_total) or vector(0)", "failures"),
            )),
            Panel("Suppressions by the way they came", "ops", (
                (_rate("heed_unsubscribes_total", "channel"), "{{channel}}"),
            )),
            Panel("Recipients withheld, by check", "ops", ((_rate("heed_suppressed_total", "check"), "{{check}}"),)),
            Panel("Wishes that failed", "short", (
                ("sum(heed_unsubscribes_failed_total) or vector(0)", "failed"),
            )),
            Panel("Cancelled by suppressions", "ops", ((_rate("heed_cancelled_total"), "cancelled"),)),
            Panel("Entries, and the log's position", "short", (
                ("max(heed_suppression_entries)", "entries"),
                ("min(heed_suppression_position)", "position"),
            )),
        ),
    ),
    "capacity": (
        "Heed: capacity",
        (
            Panel("Commit of submissions", "s", _quantiles("heed_commit_seconds")),
            Panel("Claim", "s", _quantiles("heed_claim_seconds")),
            Panel("Outcomes", "s", _quantiles("heed_outcome_seconds")),
            Panel("Rendering and signing", "s", _quantiles("heed_dkim_seconds")),
            Panel("CPU of workers", "short", ((_rate("heed_cpu_seconds_total"), "cores"),)),
            Panel("Memory", "bytes", (
                ("sum(heed_resident_bytes)", "resident"),
                ("sum(heed_content_bytes)", "message content"),
            )),
            Panel("Recipients in memory", "short", (("sum(heed_leased_recipients)", "leased"),)),
            Panel("Clients", "short", (("sum by (listener) (heed_clients)", "{{listener}}"),)),
            Panel("Workers that died, leases taken back or lost", "short", (
                ("sum(heed_worker_restarts_total) or vector(0)", "restarts"),
                ("sum(heed_reclaimed_total) or vector(0)", "taken back"),
                ("sum(heed_lost_leases_total) or vector(0)", "lost"),
            )),
            Panel("Webhooks", "ops", (
                (_rate("heed_webhook_events_total"), "taken"),
                (_rate("heed_webhook_failures_total"), "failed"),
            )),
            Panel("Webhook that has failed longest", "s", (("max(heed_webhook_failing_seconds)", "failing"),)),
        ),
    ),
}  # fmt: skip


def dashboard(name: str) -> dict[str, Any]:
    """One dashboard as Grafana imports it."""
    title, panels = DASHBOARDS[name]
    source = {"type": "prometheus", "uid": "${datasource}"}
    return {
        "uid": f"heed-{name}",
        "title": title,
        "tags": ["heed"],
        "timezone": "utc",
        "schemaVersion": 39,
        "version": 1,
        "refresh": "10s",
        "time": {"from": "now-1h", "to": "now"},
        "templating": {"list": [{"name": "datasource", "type": "datasource", "query": "prometheus"}]},
        "panels": [
            {
                "id": number + 1,
                "type": "timeseries",
                "title": panel.title,
                "description": panel.description,
                "datasource": source,
                "gridPos": {
                    "x": number * _WIDTH % _COLUMNS, "y": number * _WIDTH // _COLUMNS * _HEIGHT,
                    "w": _WIDTH, "h": _HEIGHT,
                },
                "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0}, "overrides": []},
                "targets": [
                    {"refId": chr(65 + place), "datasource": source, "expr": expr, "legendFormat": legend}
                    for place, (expr, legend) in enumerate(panel.series)
                ],
            }
            for number, panel in enumerate(panels)
        ],
    }  # fmt: skip


def text(name: str) -> str:
    """The text of config/grafana/<name>.json."""
    return json.dumps(dashboard(name), indent=2) + "\n"


if __name__ == "__main__":
    PLACE.mkdir(exist_ok=True)
    for each in DASHBOARDS:
        (PLACE / f"{each}.json").write_text(text(each), encoding="utf-8")
