"""The counters of the otlp role for Prometheus. Its intake exposes them at `/metrics`."""

from collections.abc import Iterator
from dataclasses import dataclass

from prometheus_client import generate_latest
from prometheus_client.core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector

from streams.otlp.status import OtlpStatus
from streams.runtime.metrics import process_registry
from streams.runtime.tally import Tally

_RECORDS = ("accepted", "rejected", "ignored")


def expose(tally: Tally[OtlpStatus]) -> bytes:
    """All figures in Prometheus' text format."""
    return generate_latest(process_registry("otlp", OtlpMetrics(tally)))


@dataclass(frozen=True, slots=True, eq=False)
class OtlpMetrics(Collector):
    """The counters of one process, since its start."""

    tally: Tally[OtlpStatus]

    def collect(self) -> Iterator[Metric]:
        status = self.tally.status
        records = CounterMetricFamily("ratchet_otlp_records", "Spans and log records, by result.", labels=["result"])
        for result in _RECORDS:
            records.add_metric([result], getattr(status, result))
        yield records
        yield CounterMetricFamily(
            "ratchet_otlp_refused_requests", "Requests that were not taken.", value=status.refused_requests
        )
