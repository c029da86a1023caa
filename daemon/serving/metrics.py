"""Ratchet's metrics for Prometheus, in a registry of their own. The serve role exposes them at `/metrics`.

What is durable is counted where it is durable, in the store and the audit log, so that no restart resets a counter.
"""

from collections import Counter as Tally
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from prometheus_client import Counter, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from daemon.registry.audit import Action, AuditEntry
from daemon.registry.holds import standing
from daemon.registry.learner_status import learner_report
from daemon.registry.refs import Refs
from daemon.registry.registry import Registry, served_name
from daemon.registry.task_uses import readable_summary
from daemon.serving.alias import Alias
from daemon.serving.attested import AttestationMetrics, Attested
from daemon.serving.audit_chain import AuditChain
from daemon.serving.call_metrics import CallMetrics
from daemon.serving.canary import Canary
from daemon.serving.canary_metrics import CanaryMetrics
from daemon.serving.capture import Capture, Result
from daemon.serving.drill_metrics import drill_metrics
from daemon.serving.feedback import FeedbackIntake
from daemon.serving.gate_metrics import alpha_metrics, gate_metrics
from daemon.serving.group_metrics import GroupMetrics
from daemon.serving.groups import ServedGroups
from daemon.serving.learner_metrics import learner_metrics
from daemon.serving.limits import LimitCounts
from daemon.serving.replica_metrics import ReplicaMetrics
from daemon.serving.replicas import Replicas
from daemon.serving.room import ACTOR
from daemon.serving.snapshot_metrics import snapshot_metrics
from daemon.serving.store_metrics import StoreMetrics, production_metrics
from daemon.serving.store_watch import StoreWatch
from evaluation.account_summary import AccountSummary
from evaluation.settings import GateSettings
from streams.errors import RegistryError
from streams.runtime.metrics import process_registry
from streams.store.metrics import disk_free


class Metrics:
    """The metrics of one serve process; `gate` are the settings that the learner's gates have."""

    def __init__(
        self,
        registry: Registry,
        alias: Alias,
        store: StoreWatch,
        capture: Capture | None = None,
        feedback: FeedbackIntake | None = None,
        canary: Canary | None = None,
        replicas: Replicas | None = None,
        attested: Attested | None = None,
        gate: GateSettings = GateSettings(),  # noqa: B008 - frozen
        groups: ServedGroups | None = None,
    ) -> None:
        self._exposed = process_registry("serve")
        self.gateway_requests = Counter(
            "ratchet_gateway_requests",
            "Requests below `/v1` but lists of models, by the status of the reply, refused and failed ones too.",
            ["status"],
            registry=self._exposed,
        )
        others = () if groups is None else tuple(group for group in groups.all.values() if group.name)
        self.calls = CallMetrics(alias, self._exposed, tuple(group.alias for group in others))
        self.limits = LimitCounts(self._exposed)
        chain = AuditChain(registry.audit)
        if groups is not None and others:
            self._exposed.register(GroupMetrics(groups))
        self._exposed.register(StoreMetrics(store))
        registries = tuple(group.registry for group in others)
        chains = tuple(AuditChain(each.audit) for each in registries)
        self._exposed.register(_LoopMetrics(registry, alias, store, chain, gate, replicas, registries, chains))
        self._exposed.register(_CaptureMetrics(capture, feedback))
        if attested is not None:
            self._exposed.register(AttestationMetrics(attested, registry))
        if canary is not None:
            self._exposed.register(CanaryMetrics(chain, canary))
        if replicas is not None:
            self._exposed.register(ReplicaMetrics(replicas))

    def collect(self) -> Iterator[Metric]:
        """All metrics."""
        return iter(self._exposed.collect())

    def expose(self) -> bytes:
        """All metrics in Prometheus' text format."""
        return generate_latest(self._exposed)


@dataclass(frozen=True, slots=True, eq=False)
class _LoopMetrics(Collector):
    """Metrics of the loop, from the audit log, and of the serving adapter."""

    registry: Registry
    alias: Alias
    store: StoreWatch
    chain: AuditChain
    gate: GateSettings
    replicas: Replicas | None = None
    others: tuple[Registry, ...] = ()
    chains: tuple[AuditChain, ...] = ()

    def collect(self) -> Iterator[Metric]:
        yield GaugeMetricFamily(
            "ratchet_audit_chain_broken",
            "1 if a line of the audit log, of any group, is not what was written.",
            value=float(any(chain.is_broken() for chain in (self.chain, *self.chains))),
        )
        entries = self.chain.entries()
        yield from _of_actions(entries)
        yield from gate_metrics(entries)
        yield from drill_metrics(entries)
        yield from alpha_metrics(entries, self.gate)
        yield from learner_metrics(learner_report(self.registry.home, entries))
        yield from snapshot_metrics(self.registry.home)
        yield disk_free("home", self.registry.home)
        account = readable_summary(self.registry) if not self.chain.is_broken() else None
        if account is not None:
            yield from holdout_metrics(account)
        active = GaugeMetricFamily(
            "ratchet_active_adapter",
            "1 for the adapter that answers now, absent while nothing does; `served` is empty for one that is loaded "
            "when it is asked for.",
            labels=["adapter", "served"],
        )
        served = self._answering()
        if served is not None:
            active.add_metric([self.alias.adapter, served], 1)
        yield active
        refs = _readable_refs(self.registry)
        if self.store.status is not None and refs is not None:
            digests = {served_name(entry): entry.subject for entry in entries if entry.action is Action.NAMED}
            foreign = frozenset[str]().union(*(other.names_given_by(ACTOR) for other in self.others))
            yield from production_metrics(self.store.status, refs, digests, foreign)

    def _answering(self) -> str | None:
        """The name that answers an agent now; None while no inference server has it, or none can be used."""
        if self.replicas is None:
            return self.alias.served
        if self.alias.is_cold and self.replicas.usable():
            return ""
        return self.alias.served if self.replicas.choose(self.alias.served) is not None else None


def _readable_refs(registry: Registry) -> Refs | None:
    try:
        return registry.refs()
    except RegistryError:
        return None  # the serve role says so itself: it cannot go on without


def _of_actions(entries: Sequence[AuditEntry]) -> Iterator[Metric]:
    actions = Tally(entry.action for entry in entries)
    for name, meaning, action in (
        ("ratchet_cycles", "Cycles that were finished.", Action.CYCLE),
        ("ratchet_promotions", "Changes of the champion to an approved adapter.", Action.PROMOTED),
        ("ratchet_rollbacks", "Changes of the champion back to an earlier one.", Action.ROLLED_BACK),
        ("ratchet_restores", "Adapters that a person put back after a rollback.", Action.RESTORED),
        (
            "ratchet_promotion_failures",
            "Promotions and rollbacks that were refused or failed.",
            Action.PROMOTION_FAILED,
        ),
    ):
        yield CounterMetricFamily(name, meaning, value=actions[action])
    yield GaugeMetricFamily(
        "ratchet_promotion_hold",
        "1 while nothing is promoted without a person's approval.",
        value=float(standing(entries) is not None),
    )


def holdout_metrics(account: AccountSummary) -> Iterator[Metric]:
    """Metrics of the held-out tasks; how many there are is known from the first trial on."""
    used = GaugeMetricFamily("ratchet_holdout_tasks_used", "Held-out tasks that any trial played.", labels=["list"])
    for name, count in account.uses.items():
        used.add_metric([name], count)
    yield used
    yield GaugeMetricFamily(
        "ratchet_holdout_mean_uses",
        "Trials that played a task of the selection list, on average.",
        value=account.mean_uses,
    )
    yield GaugeMetricFamily(
        "ratchet_holdout_gates_until_rotation",
        "Gates until other tasks are drawn, unless a promotion comes before.",
        value=account.gates_until_rotation,
    )
    if account.fresh is not None:
        yield GaugeMetricFamily(
            "ratchet_holdout_fresh_tasks", "Confirmation tasks that no trial has played.", value=account.fresh
        )


@dataclass(frozen=True, slots=True, eq=False)
class _CaptureMetrics(Collector):
    """Metrics of what the gateway records, since the process's start."""

    capture: Capture | None
    feedback: FeedbackIntake | None

    def collect(self) -> Iterator[Metric]:
        if self.capture is not None:
            status = self.capture.status
            calls = CounterMetricFamily(
                "ratchet_capture_calls",
                "Calls that are in the log (`published`), or lost: `dropped` because the queue was full or the role "
                "stopped, `refused` because the log does not take them.",
                labels=["result"],
            )
            for result in Result:
                calls.add_metric([result.value], getattr(status, result.value))
            yield calls
            yield GaugeMetricFamily("ratchet_capture_queue", "Calls that wait for the log.", value=status.waiting)
            yield GaugeMetricFamily(
                "ratchet_capture_queue_bytes", "Bytes of the calls that wait for the log.", value=status.waiting_bytes
            )
        if self.feedback is not None:
            taken = CounterMetricFamily(
                "ratchet_feedback",
                "Feedback that is in the log (`published`) or was answered with an error (`refused`).",
                labels=["result"],
            )
            for name in ("published", "refused"):
                taken.add_metric([name], self.feedback.results[name])
            yield taken
