"""Every metric of Heed, defined once: name, unit, labels, meaning.

All are aggregates: no label holds an address, a message id or an unbounded set of values. Workers write to files shared
with the supervisor (prometheus_client's multiprocess mode), which serves the sum; a worker that dies keeps its counts.
"""

from typing import Final

from prometheus_client import Counter, Gauge, Histogram

# sites beyond this many share the label "other", so that the page stays bounded
MAX_SITE_LABELS: Final = 50

_FAST: Final = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10)
_REBUILD: Final = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 60, 300)
_MAIL: Final = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60, 300, 900, 3600, 14400, 86400, 432000)

received = Counter("heed_received_messages_total", "Messages accepted with 250 after their commit", ["message_class"])
accepted = Counter("heed_accepted_recipients_total", "Recipients of accepted messages", ["message_class"])
refused = Counter("heed_refused_total", "Commands and messages refused, by reason", ["listener", "reason"])
delivered = Counter("heed_delivered_total", "Recipients taken by a peer with 250", ["message_class"])
deferred = Counter("heed_deferred_total", "Attempts that failed for now, by class", ["bounce_class"])
bounced = Counter("heed_bounced_total", "Recipients refused for good, by class", ["bounce_class"])
attempts = Counter(
    "heed_attempts_total", "Attempts that ended, by mailbox provider and what came of them", ["provider", "action"]
)
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
replies = Counter(
    "heed_replies_total",
    "Answers to campaign mail: unsubscribed, forwarded, asked what was meant, or refused",
    ["action"],
)
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
index_lag = Gauge(
    "heed_suppression_lag_entries",
    "Entries of the log that a worker knows of and has not applied yet",
    multiprocess_mode="livemax",
)
rebuild_seconds = Histogram(
    "heed_suppression_rebuild_seconds", "One rebuild of a node's base file of the suppression index", buckets=_REBUILD
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
webhook_failing = Gauge(
    "heed_webhook_failing_seconds",
    "For how long the webhook that has failed longest has taken nothing",
    multiprocess_mode="livemax",
)
database_up = Gauge("heed_database_up", "1 while the database answers", multiprocess_mode="livemin")

signing_seconds = Histogram("heed_dkim_seconds", "Rendering and signing one recipient's message", buckets=_FAST)
commit_seconds = Histogram("heed_commit_seconds", "One transaction that stores submitted messages", buckets=_FAST)
claim_seconds = Histogram("heed_claim_seconds", "One claim of due recipients", buckets=_FAST)
outcome_seconds = Histogram("heed_outcome_seconds", "One transaction that stores outcomes", buckets=_FAST)
delivery_seconds = Histogram("heed_accept_to_delivery_seconds", "From 250 to the peer's 250", buckets=_MAIL)

workers = Gauge("heed_workers", "Worker processes of a node that take and send mail", multiprocess_mode="livemax")
cpu = Counter("heed_cpu_seconds_total", "CPU time used by workers")
resident = Gauge("heed_resident_bytes", "Resident memory of workers", multiprocess_mode="livesum")


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


WATCH: Final = {
    "heed_received_messages_total": "A fall to 0 while applications submit.",
    "heed_accepted_recipients_total": "With heed_delivered_total: what comes in and does not go out is queued.",
    "heed_refused_total": "A rise of one reason: authentication is a wrong password, unavailable the database.",
    "heed_delivered_total": "A fall to 0 while heed_queued_recipients grows.",
    "heed_deferred_total": "reputation, policy or rate-limited: a provider is displeased with this sender.",
    "heed_bounced_total": "More than 5 % of attempts: a bad list. reputation at all: this sender is blocked.",
    "heed_attempts_total": "Alert HeedDeferralsHigh and HeedBouncesHigh: the share of delayed and failed, by provider.",
    "heed_expired_total": "Any rise: recipients who got nothing within the lifetime.",
    "heed_suppressed_total": "dot: the last check stopped mail whose unsubscribe came while it was on its way.",
    "heed_cancelled_total": "Nothing; it follows heed_unsubscribes_total.",
    "heed_ordered_total": "Nothing; it follows what operators order.",
    "heed_unsubscribes_total": "A rise of complaint: see HeedComplaints.",
    "heed_unsubscribes_failed_total": "Alert HeedUnsubscribesFail: above 0. People wanted out and could not.",
    "heed_deliveries_compared_total": "No rise while mail is delivered: nothing is proved.",
    "heed_sends_after_suppression_total": "Alert HeedSentAfterSuppression: above 0. The promise is broken.",
    "heed_canary_failures_total": "Alert HeedCanaryFails: on any increase. Links in sent mail are dead.",
    "heed_answers_total": "complaint: alert HeedComplaints. unknown: mail that nothing could be made of.",
    "heed_replies_total": "refused: answers that no mailbox takes; see `heed tenant replies`.",
    "heed_dsn_total": "Nothing; notices to envelope senders.",
    "heed_lost_leases_total": "Alert HeedLeasesLost: above 0. Some mail may have gone out twice.",
    "heed_reclaimed_total": "A rise without a restart: workers die.",
    "heed_worker_restarts_total": "Alert HeedWorkersDie: more than 3 in 15 minutes.",
    "heed_webhook_events_total": "Nothing; it follows the events.",
    "heed_webhook_failures_total": "A rise: see heed_webhook_failing_seconds.",
    "heed_watermark_age_seconds": "Alert HeedWatermarkStale: above 3. Above suppression.max_staleness nothing is sent.",
    "heed_canary_seconds": "Above 5: the promise gets slow.",
    "heed_suppression_entries": "A fall: something was lifted, or a node has an old list.",
    "heed_suppression_position": "Standing still while heed_unsubscribes_total grows.",
    "heed_suppression_lag_entries": "Above 0 for long: a worker can't keep up, or waits for a large import.",
    "heed_suppression_rebuild_seconds": "Nothing: mail goes on meanwhile. Growth follows heed_suppression_entries.",
    "heed_unsubscribe_effective_seconds": "p99 above 2: the list reaches workers late.",
    "heed_leased_recipients": "At queue.memory_recipients for long: peers are slower than the queue.",
    "heed_content_bytes": "Near queue.max_bytes_in_memory: submissions are answered with 452.",
    "heed_connections": "At delivery.connections_per_site for long: that site is the limit.",
    "heed_clients": "At submission.max_connections: clients are refused.",
    "heed_queued_recipients": "Alert HeedQueueHeld: held for a day; somebody forgot a pause.",
    "heed_oldest_due_seconds": "Alert HeedQueueOverdue: above 900. What is due does not get its turn.",
    "heed_webhook_failing_seconds": "Alert HeedWebhooksFail: above 900. A tenant's endpoint is down, or refuses.",
    "heed_database_up": "Alert HeedDatabaseDown: 0. Nothing is taken; what is leased goes on.",
    "heed_dkim_seconds": "p99 above 0.01: CPU is short.",
    "heed_commit_seconds": "Alert HeedCommitsSlow: p99 above 0.5. 250 comes after this.",
    "heed_claim_seconds": "p99 above 0.5: the queue's indexes are bloated, or a long transaction holds vacuum up.",
    "heed_outcome_seconds": "p99 above 0.5: likewise.",
    "heed_accept_to_delivery_seconds": "Median of transactional mail above 10.",
    "heed_workers": "Below the number that is configured.",
    "heed_cpu_seconds_total": "rate() near the number of cores.",
    "heed_resident_bytes": "Growth without bound.",
}
"""What an operator looks at, or is alerted on, for each metric."""
