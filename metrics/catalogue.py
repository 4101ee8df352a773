"""docs/metrics.md: every metric, its kind and labels, what it means and what to watch; `python -m` of this prints it.

The text has what metrics/registry.py says, so that there is one place to change; KeyError for a metric without a WATCH.
"""

from collections.abc import Iterator
from typing import Final

from prometheus_client.metrics import MetricWrapperBase

from metrics import registry

_HEAD: Final = """# Metrics

Written by `python -m metrics.catalogue` from metrics/registry.py; a test keeps it true. `GET /metrics` on
`metrics.listen` serves the sum over the node's workers. No label holds an address, a message id or an unbounded set of
values: sites beyond the first 50 of a worker are counted as `other`. `heed_queued_recipients` and
`heed_oldest_due_seconds` are of the whole installation, whichever node says them, and some seconds old.

The alerts are in config/prometheus/alerts.yml, what to do about each in [runbook.md](runbook.md), and the dashboards in
config/grafana.
"""


def metrics() -> Iterator[MetricWrapperBase]:
    """Every metric that is defined, in order of definition."""
    for value in vars(registry).values():
        if isinstance(value, MetricWrapperBase):
            yield value


def name_of(metric: MetricWrapperBase) -> str:
    """The name as it is scraped; of a histogram without _bucket, _sum and _count."""
    return str(metric._name) + ("_total" if metric._type == "counter" else "")


def page() -> str:
    """The text of docs/metrics.md."""
    lines = [_HEAD, "| Metric | Kind | Labels | Meaning | Watch |", "|---|---|---|---|---|"]
    for metric in metrics():
        labels = ", ".join(f"`{label}`" for label in metric._labelnames)
        name = name_of(metric)
        lines.append(f"| `{name}` | {metric._type} | {labels} | {metric._documentation} | {registry.WATCH[name]} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(page(), end="")
