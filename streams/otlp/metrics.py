"""The counters of the otlp role for Prometheus. Its intake exposes them at `/metrics`."""

from collections.abc import Iterator
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector

from streams.otlp.tally import Tally

_RECORDS = ("accepted", "rejected", "ignored", "repeated", "unreadable")


def expose(tally: Tally) -> bytes:
    """All figures in Prometheus' text format."""
    registry = CollectorRegistry()
    registry.register(_Figures(tally))
    return generate_latest(registry)


@dataclass(frozen=True, slots=True, eq=False)
class _Figures(Collector):
    tally: Tally

    def collect(self) -> Iterator[Metric]:
        status = self.tally.status
        records = CounterMetricFamily("ratchet_otlp_records", "Spans and log records, by result.", labels=["result"])
        for result in _RECORDS:
            records.add_metric([result], getattr(status, result))
        yield records
        for name, meaning, value in (
            ("ratchet_otlp_refused_requests", "Requests that were not taken.", status.refused_requests),
            ("ratchet_otlp_steps", "Steps that were assembled.", status.steps),
            ("ratchet_otlp_outcomes", "Outcomes that were assembled.", status.outcomes),
            ("ratchet_otlp_too_large", "Events that no broker takes.", status.too_large),
            ("ratchet_otlp_unusable_evaluations", "Evaluations of no use.", status.unusable_evaluations),
        ):
            yield CounterMetricFamily(name, meaning, value=value)
        absent = CounterMetricFamily(
            "ratchet_otlp_calls_without_content", "Model calls without content, by the reason.", labels=["reason"]
        )
        for reason, count in status.absences.items():
            absent.add_metric([reason], count)
        yield absent
        unrecognised = CounterMetricFamily(
            "ratchet_otlp_unrecognised_spans", "Spans like model calls in no known dialect.", labels=["name"]
        )
        for name, count in status.unrecognised.items():
            unrecognised.add_metric([name], count)
        yield unrecognised
