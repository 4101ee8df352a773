"""The last hour of a node's metrics, kept in the supervisor's memory for the status page and `heed top`.

A sample is every counter and gauge as one number, summed over its labels, and again for each label value. A counter
that starts over, because the daemon was restarted, counts from 0.
"""

from collections import deque
from collections.abc import Mapping
from itertools import pairwise
from typing import Final

from prometheus_client import CollectorRegistry
from prometheus_client.multiprocess import MultiProcessCollector

SAMPLE_SECONDS: Final = 10.0
_POINTS: Final = 361

Series = list[tuple[float, float]]


def read(directory: str) -> dict[str, float]:
    """All samples of a node now: `name`, and `name{value}` for those with one label."""
    registry = CollectorRegistry()
    MultiProcessCollector(registry, directory)  # type: ignore[no-untyped-call]
    found: dict[str, float] = {}
    for family in registry.collect():
        for sample in family.samples:
            if not sample.name.endswith("_bucket"):
                found[sample.name] = found.get(sample.name, 0.0) + sample.value
                if len(sample.labels) == 1:
                    found[f"{sample.name}{{{next(iter(sample.labels.values()))}}}"] = sample.value
    return found


class History:
    """Samples in the order of their time."""

    def __init__(self, points: int = _POINTS) -> None:
        self._samples: deque[tuple[float, Mapping[str, float]]] = deque(maxlen=points)

    def add(self, at: float, values: Mapping[str, float]) -> None:
        """Remember a sample; at: epoch seconds."""
        self._samples.append((at, values))

    def values(self, name: str) -> Series:
        """A gauge over time."""
        return [(at, values.get(name, 0.0)) for at, values in self._samples]

    def rates(self, name: str) -> Series:
        """What a counter grew by each second, over time."""
        found = []
        for (before, old), (at, new) in pairwise(self._samples):
            if at > before:
                grown = new.get(name, 0.0) - old.get(name, 0.0)
                found.append((at, (grown if grown >= 0 else new.get(name, 0.0)) / (at - before)))
        return found
