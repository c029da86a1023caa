"""Metrics of the inference servers, by their addresses."""

from collections.abc import Iterator
from dataclasses import dataclass

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from daemon.serving.replicas import Replicas


@dataclass(frozen=True, slots=True, eq=False)
class ReplicaMetrics(Collector):
    """Which servers take requests, how many they answer, and what attestation found since the process's start."""

    replicas: Replicas

    def collect(self) -> Iterator[Metric]:
        serving = GaugeMetricFamily(
            "ratchet_engine_in_rotation", "1 for an inference server that takes requests.", labels=["url"]
        )
        in_flight = GaugeMetricFamily("ratchet_engine_in_flight", "Requests that it answers.", labels=["url"])
        attestations = CounterMetricFamily(
            "ratchet_attestations", "Attestations of adapters that were loaded.", labels=["url", "result"]
        )
        for status in (replica.status() for replica in self.replicas.all):
            serving.add_metric([status.url], float(not status.reason))
            in_flight.add_metric([status.url], status.in_flight)
            attestations.add_metric([status.url, "attested"], status.attested)
            attestations.add_metric([status.url, "refuted"], status.refuted)
        yield from (serving, in_flight, attestations)
