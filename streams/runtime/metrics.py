"""Metrics of a process for Prometheus, the same of every role; roles register their own beside them.

A role that has an HTTP interface gives them at `/metrics`.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version

from prometheus_client import (
    CollectorRegistry,
    GCCollector,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
)
from prometheus_client.core import Metric
from prometheus_client.metrics_core import InfoMetricFamily
from prometheus_client.registry import Collector


@dataclass(frozen=True, slots=True, eq=False)
class _Build(Collector):
    """The version of Ratchet, and the role of the process."""

    role: str

    def collect(self) -> Iterator[Metric]:
        labels = {"version": version("ratchetd"), "role": self.role}
        yield InfoMetricFamily("ratchet_build", "1, with the version of Ratchet and the role of the process.", labels)


def process_registry(role: str, *collectors: Collector) -> CollectorRegistry:
    """A registry with the memory, CPU time, open files and start of this process, and with `collectors`."""
    # Series that only say when others began, and that no client of this format reads.
    disable_created_metrics()  # type: ignore[no-untyped-call]  # it has no annotations
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    GCCollector(registry=registry)
    for collector in (_Build(role), *collectors):
        registry.register(collector)
    return registry
