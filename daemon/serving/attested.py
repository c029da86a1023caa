"""The results of attestations: how far what was loaded is from what was trained. `loading.py` notes them."""

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from daemon.registry.registry import Registry
from evaluation.attestation import Attestation
from streams.errors import RegistryError

_MOST = 8


@dataclass(frozen=True, slots=True)
class Attested:
    """The latest attestation of each of the last adapters, and whether it passed."""

    found: OrderedDict[str, tuple[Attestation, bool]] = field(default_factory=OrderedDict)

    def note(self, adapter: str, proof: Attestation, *, passed: bool) -> None:
        self.found[adapter] = proof, passed
        self.found.move_to_end(adapter)
        if len(self.found) > _MOST:
            self.found.popitem(last=False)


@dataclass(frozen=True, slots=True, eq=False)
class AttestationMetrics(Collector):
    """Since the start of the process; the base model is not attested."""

    attested: Attested
    registry: Registry

    def collect(self) -> Iterator[Metric]:
        labels = ["adapter", "position"]
        deviation = GaugeMetricFamily(
            "ratchet_attestation_deviation",
            "Mean difference of an adapter's log-probabilities to its trainer's, in nats per token, when last loaded.",
            labels=labels,
        )
        effect = GaugeMetricFamily(
            "ratchet_attestation_effect",
            "The same to the base model's; it must be twice the deviation and more.",
            labels=labels,
        )
        passed = GaugeMetricFamily(
            "ratchet_attestation_passed", "1 if what was loaded is the adapter that was trained.", labels=labels
        )
        try:
            refs = self.registry.refs()
        except RegistryError:
            return  # the serve role says so itself: it cannot go on without
        for adapter, (proof, ok) in list(self.attested.found.items()):
            position = {refs.previous: "previous", refs.champion: "champion"}.get(adapter, "other")
            deviation.add_metric([adapter, position], proof.deviation)
            effect.add_metric([adapter, position], proof.effect)
            passed.add_metric([adapter, position], float(ok))
        yield from (deviation, effect, passed)
