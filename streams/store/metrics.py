"""Metrics of the process that has the store open, for Prometheus. The record role exposes them at `/metrics`.

What is stored is counted in the store: the serve role asks for it and exposes it.
"""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from prometheus_client import Histogram
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


def write_seconds() -> Histogram:
    """The durations of the store's writes, in no registry yet."""
    return Histogram(
        "ratchet_store_write_seconds",
        "Time to store a batch of records and all that follows from it, the wait for other writers included.",
        registry=None,
        buckets=_SECONDS,
    )


@dataclass(frozen=True, slots=True, eq=False)
class StoreFile(Collector):
    """The size of the DuckDB file at `path`, with its write-ahead log, and the room that is left for it."""

    path: Path

    def collect(self) -> Iterator[Metric]:
        files = (self.path, self.path.with_name(f"{self.path.name}.wal"))
        size = sum(file.stat().st_size for file in files if file.exists())
        yield GaugeMetricFamily(
            "ratchet_store_size_bytes", "Size of the store's file and of its write-ahead log.", value=size
        )
        yield disk_free("store", self.path.parent)


def disk_free(place: str, folder: Path) -> Metric:
    """The room on the file system of a folder; without a sample where the folder is missing."""
    free = GaugeMetricFamily(
        "ratchet_disk_free_bytes", "Room that is left on the file system of the store or of the home.", labels=["place"]
    )
    if folder.exists():
        free.add_metric([place], shutil.disk_usage(folder).free)
    return free
