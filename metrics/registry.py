"""Every metric of Heed, defined once: name, unit, labels, meaning.

All are aggregates: no label holds an address, a message id or an unbounded set of values. Workers write to files shared
with the supervisor (prometheus_client's multiprocess mode), which serves the sum; a worker that dies keeps its counts.
"""

from typing import Final

from prometheus_client import Counter, Gauge, Histogram

# sites beyond this many share the label "other", so that the page stays bounded
MAX_SITE_LABELS: Final = 50

_FAST: Final = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10)
_MAIL: Final = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60, 300, 900, 3600, 14400, 86400, 432000)

received = Counter("heed_received_messages_total", "Messages accepted with 250 after their commit", ["message_class"])
accepted = Counter("heed_accepted_recipients_total", "Recipients of accepted messages", ["message_class"])
refused = Counter("heed_refused_total", "Commands and messages refused, by reason", ["listener", "reason"])
delivered = Counter("heed_delivered_total", "Recipients taken by a peer with 250", ["message_class"])
deferred = Counter("heed_deferred_total", "Attempts that failed for now, by class", ["bounce_class"])
bounced = Counter("heed_bounced_total", "Recipients refused for good, by class", ["bounce_class"])
expired = Counter("heed_expired_total", "Recipients that were not delivered within their lifetime")
suppressed = Counter("heed_suppressed_total", "Recipients withheld, by the check that did it", ["check"])
cancelled = Counter("heed_cancelled_total", "Queued recipients cancelled by the commit of a suppression")
ordered = Counter("heed_ordered_total", "Recipients set aside or cancelled by an operator's order", ["order"])
unsubscribes = Counter("heed_unsubscribes_total", "Suppressions recorded, by the way they came", ["channel"])
failed_unsubscribes = Counter(
    "heed_unsubscribes_failed_total",
    "Wishes to unsubscribe that could not be recorded, and were answered so; alert above 0",
)
compared = Counter(
    "heed_deliveries_compared_total", "Deliveries that were compared with the suppression log afterwards"
)
sends_after_suppression = Counter(
    "heed_sends_after_suppression_total",
    "Of these, made when a suppression had been in force for longer than the bound; alert above 0",
)
canary_failures = Counter(
    "heed_canary_failures_total", "Probes of the public unsubscribe URL that failed; alert on any increase"
)
answers = Counter("heed_answers_total", "Inbound mail, by what it was read as", ["kind"])
notices = Counter("heed_dsn_total", "Delivery status notifications written", ["action"])
lost_leases = Counter("heed_lost_leases_total", "Outcomes that came after the lease had gone to another worker")
reclaimed = Counter("heed_reclaimed_total", "Recipients taken back from workers that died")
restarts = Counter("heed_worker_restarts_total", "Workers that ended and were started again")
webhook_events = Counter("heed_webhook_events_total", "Events taken by webhooks with 2xx")
webhook_failures = Counter("heed_webhook_failures_total", "Deliveries to webhooks that failed and are tried again")

watermark_age = Gauge(
    "heed_watermark_age_seconds",
    "Time since a worker last knew its suppression list to be the newest; alert above 3",
    multiprocess_mode="livemax",
)
canary_seconds = Gauge(
    "heed_canary_seconds", "From a probe's POST to its effect in the index, at the last probe", multiprocess_mode="max"
)
index_entries = Gauge(
    "heed_suppression_entries", "Entries in the suppression index of a worker", multiprocess_mode="livemax"
)
index_position = Gauge(
    "heed_suppression_position", "Log position that the slowest worker has applied", multiprocess_mode="livemin"
)
effective = Histogram(
    "heed_unsubscribe_effective_seconds", "From the commit of a suppression to its effect in a worker", buckets=_FAST
)
leased = Gauge("heed_leased_recipients", "Recipients held in memory for delivery", multiprocess_mode="livesum")
memory = Gauge("heed_content_bytes", "Message content held in memory", multiprocess_mode="livesum")
connections = Gauge("heed_connections", "Connections open to a site", ["site"], multiprocess_mode="livesum")
clients = Gauge("heed_clients", "Client connections open", ["listener"], multiprocess_mode="livesum")
queued = Gauge("heed_queued_recipients", "Recipients in the database, by state", ["state"], multiprocess_mode="livemax")
oldest = Gauge(
    "heed_oldest_due_seconds", "How long the most overdue queued recipient waits", multiprocess_mode="livemax"
)
database_up = Gauge("heed_database_up", "1 while the database answers", multiprocess_mode="livemin")

signing_seconds = Histogram("heed_dkim_seconds", "Rendering and signing one recipient's message", buckets=_FAST)
commit_seconds = Histogram("heed_commit_seconds", "One transaction that stores submitted messages", buckets=_FAST)
claim_seconds = Histogram("heed_claim_seconds", "One claim of due recipients", buckets=_FAST)
outcome_seconds = Histogram("heed_outcome_seconds", "One transaction that stores outcomes", buckets=_FAST)
delivery_seconds = Histogram("heed_accept_to_delivery_seconds", "From 250 to the peer's 250", buckets=_MAIL)


class SiteLabels:
    """Bounded labels: the first sites seen keep their names, later ones are `other`."""

    def __init__(self, most: int = MAX_SITE_LABELS) -> None:
        self._most = most
        self._names: set[str] = set()

    def label(self, site: str) -> str:
        """The label under which a site is counted."""
        if site in self._names or len(self._names) < self._most:
            self._names.add(site)
            return site
        return "other"
