"""What is said about metrics is true: the page, the dashboards, the alerts and the runbook agree with the registry."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from metrics import registry
from metrics.catalogue import metrics, name_of, page
from metrics.dashboards import DASHBOARDS, PLACE, text

ROOT = Path(__file__).parents[2]
ALERTS = (ROOT / "config/prometheus/alerts.yml").read_text("utf-8")
RUNBOOK = (ROOT / "docs/runbook.md").read_text("utf-8")
NAMES = {name_of(metric): metric for metric in metrics()}
BOUNDED_LABELS = {
    "message_class", "listener", "reason", "bounce_class", "check", "channel", "kind", "action", "site", "state",
    "order", "provider",
}  # fmt: skip


def known(name: str) -> bool:
    return name in NAMES or re.sub(r"_(bucket|sum|count)$", "", name) in NAMES


def test_the_page_is_what_the_registry_says() -> None:
    assert (ROOT / "docs/metrics.md").read_text("utf-8") == page(), "run python -m metrics.catalogue > docs/metrics.md"


def test_every_metric_says_what_to_watch_and_nothing_else_does() -> None:
    assert registry.WATCH.keys() == NAMES.keys()


@pytest.mark.parametrize("name", NAMES)
def test_a_metric_is_named_with_its_unit_and_labelled_by_bounded_sets(name: str) -> None:
    metric = NAMES[name]
    assert name.startswith("heed_")
    assert name.endswith("_total") == (metric._type == "counter")
    assert metric._type != "histogram" or name.endswith("_seconds")
    assert set(metric._labelnames) <= BOUNDED_LABELS


def test_fifty_thousand_sites_are_fifty_labels() -> None:
    labels = registry.SiteLabels()
    named = {labels.label(f"mx{number}.example.net") for number in range(50_000)}
    assert len(named) == registry.MAX_SITE_LABELS + 1
    assert "other" in named


SCRAPE = """
import os, time
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector
from metrics import registry
for _ in range(4):  # workers, each with metrics of its own
    if os.fork() == 0:
        labels = registry.SiteLabels()
        for number in range(50_000):
            registry.connections.labels(labels.label(f"mx{number}.example.net")).inc()
        os._exit(0)
    os.wait()
began = time.process_time()
scraped = CollectorRegistry()
MultiProcessCollector(scraped, os.environ["PROMETHEUS_MULTIPROC_DIR"])
text = generate_latest(scraped)
print(time.process_time() - began, len(text), text.count(b"heed_connections{"))
"""


def test_a_scrape_is_short_and_small_with_fifty_thousand_sites(tmp_path: Path) -> None:
    environment = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(tmp_path), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", SCRAPE], capture_output=True, text=True, check=True, env=environment, cwd=tmp_path
    )
    seconds, octets, sites = done.stdout.split()
    assert float(seconds) < 0.2
    assert int(octets) < 2_000_000
    assert int(sites) == registry.MAX_SITE_LABELS + 1


@pytest.mark.parametrize("name", DASHBOARDS)
def test_a_dashboard_is_what_its_panels_say(name: str) -> None:
    assert (PLACE / f"{name}.json").read_text("utf-8") == text(name), "run python -m metrics.dashboards"
    ids = [panel["id"] for panel in json.loads(text(name))["panels"]]
    assert len(set(ids)) == len(ids)


@pytest.mark.parametrize("name", DASHBOARDS)
def test_a_dashboard_asks_for_metrics_that_there_are(name: str) -> None:
    for panel in DASHBOARDS[name][1]:
        for expression, _ in panel.series:
            asked = re.findall(r"\bheed_\w+", expression)
            assert asked
            assert all(known(metric) for metric in asked), expression


def test_every_alert_asks_for_metrics_that_there_are_and_has_its_page() -> None:
    alerts = re.findall(r"- alert: (\w+)", ALERTS)
    assert len(alerts) == len(set(alerts))
    for metric in re.findall(r"\bheed_\w+", re.sub(r"^\s+(description|summary|runbook):.*$", "", ALERTS, flags=re.M)):
        assert known(metric), metric
    assert re.findall(r"^## (\w+)$", RUNBOOK, re.M) == alerts
    assert re.findall(r"runbook: docs/runbook.md#(\w+)", ALERTS) == [alert.lower() for alert in alerts]


def test_alerts_that_metrics_speak_of_exist() -> None:
    spoken_of = {name for text in registry.WATCH.values() for name in re.findall(r"Heed[A-Z]\w+", text)}
    assert spoken_of <= set(re.findall(r"- alert: (\w+)", ALERTS))
