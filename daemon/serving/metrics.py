"""Ratchet's figures for Prometheus, in a registry of their own. The serve role exposes them at `/metrics`.

What is durable is counted where it is durable, in the store and the audit log, so that no restart resets a counter.
"""

from collections import Counter as Tally
from collections.abc import Iterator
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from daemon.registry.audit import Action
from daemon.registry.holds import standing
from daemon.registry.learner_status import learner_report
from daemon.registry.registry import Registry
from daemon.registry.task_uses import readable_summary
from daemon.serving.alias import Alias
from daemon.serving.canary import Canary
from daemon.serving.canary_metrics import CanaryMetrics
from daemon.serving.capture import Capture, Result
from daemon.serving.drill_metrics import drill_metrics
from daemon.serving.feedback import FeedbackIntake
from daemon.serving.gate_metrics import gate_metrics
from daemon.serving.learner_metrics import learner_metrics
from daemon.serving.replica_metrics import ReplicaMetrics
from daemon.serving.replicas import Replicas
from daemon.serving.store_watch import StoreWatch
from evaluation.account_summary import AccountSummary
from streams.store.status import most_frequent


class Metrics:
    """The figures of one serve process."""

    def __init__(
        self,
        registry: Registry,
        alias: Alias,
        store: StoreWatch,
        capture: Capture | None = None,
        feedback: FeedbackIntake | None = None,
        canary: Canary | None = None,
        replicas: Replicas | None = None,
    ) -> None:
        self._exposed = CollectorRegistry()
        self.gateway_requests = Counter(
            "ratchet_gateway_requests",
            "Requests that agents made at the gateway, by the status of the reply.",
            ["status"],
            registry=self._exposed,
        )
        self._exposed.register(_StoreFigures(store))
        self._exposed.register(_LoopFigures(registry, alias))
        self._exposed.register(_CaptureFigures(capture, feedback))
        if canary is not None:
            self._exposed.register(CanaryMetrics(registry, canary))
        if replicas is not None:
            self._exposed.register(ReplicaMetrics(replicas))

    def expose(self) -> bytes:
        """All figures in Prometheus' text format."""
        return generate_latest(self._exposed)


@dataclass(frozen=True, slots=True, eq=False)
class _LoopFigures(Collector):
    """Metrics of the loop, from the audit log, and of the serving adapter."""

    registry: Registry
    alias: Alias

    def collect(self) -> Iterator[Metric]:
        entries = self.registry.audit.read()
        actions = Tally(entry.action for entry in entries)
        yield CounterMetricFamily("ratchet_cycles", "Cycles that were finished.", value=actions[Action.CYCLE])
        yield CounterMetricFamily(
            "ratchet_promotions", "Changes of the champion to an approved adapter.", value=actions[Action.PROMOTED]
        )
        yield CounterMetricFamily(
            "ratchet_rollbacks", "Changes of the champion back to an earlier one.", value=actions[Action.ROLLED_BACK]
        )
        yield CounterMetricFamily(
            "ratchet_restores", "Adapters that a person put back after a rollback.", value=actions[Action.RESTORED]
        )
        yield GaugeMetricFamily(
            "ratchet_promotion_hold",
            "1 while nothing is promoted without a person's approval.",
            value=float(standing(entries) is not None),
        )
        yield CounterMetricFamily(
            "ratchet_promotion_failures",
            "Changes of the champion that were refused or failed.",
            value=actions[Action.PROMOTION_FAILED],
        )
        yield from gate_metrics(entries)
        yield from drill_metrics(entries)
        yield from learner_metrics(learner_report(self.registry.home, entries))
        account = readable_summary(self.registry)
        if account is not None:
            yield from _holdout_figures(account)
        active = GaugeMetricFamily(
            "ratchet_active_adapter", "1 for the adapter that answers now.", labels=["adapter", "served"]
        )
        if self.alias.served is not None:
            active.add_metric([self.alias.adapter, self.alias.served], 1)
        yield active


def _holdout_figures(account: AccountSummary) -> Iterator[Metric]:
    """Metrics of the held-out tasks; how many there are is known from the first trial on."""
    used = GaugeMetricFamily("ratchet_holdout_tasks_used", "Held-out tasks that any trial played.", labels=["list"])
    for name, count in account.uses.items():
        used.add_metric([name], count)
    yield used
    yield GaugeMetricFamily(
        "ratchet_holdout_mean_uses", "Trials that played a task of the selection list, on average.", account.mean_uses
    )
    yield GaugeMetricFamily(
        "ratchet_holdout_gates_until_rotation",
        "Gates until other tasks are drawn, unless a promotion comes before.",
        account.gates_until_rotation,
    )
    if account.fresh is not None:
        yield GaugeMetricFamily(
            "ratchet_holdout_fresh_tasks", "Confirmation tasks that no trial has played.", account.fresh
        )


@dataclass(frozen=True, slots=True, eq=False)
class _CaptureFigures(Collector):
    """Metrics of what the gateway records, since the process's start."""

    capture: Capture | None
    feedback: FeedbackIntake | None

    def collect(self) -> Iterator[Metric]:
        if self.capture is not None:
            status = self.capture.status
            calls = CounterMetricFamily("ratchet_capture_calls", "Calls, by what became of them.", labels=["result"])
            for result in Result:
                calls.add_metric([result.value], getattr(status, result.value))
            yield calls
            yield GaugeMetricFamily("ratchet_capture_queue", "Calls that wait for the log.", value=status.waiting)
            yield GaugeMetricFamily(
                "ratchet_capture_queue_bytes", "Bytes of the calls that wait for the log.", value=status.waiting_bytes
            )
        if self.feedback is not None:
            taken = CounterMetricFamily("ratchet_feedback", "Feedback that was posted.", labels=["result"])
            for name in ("published", "refused"):
                taken.add_metric([name], self.feedback.results[name])
            yield taken


@dataclass(frozen=True, slots=True, eq=False)
class _StoreFigures(Collector):
    """Metrics of the store, as it was last seen; nothing before it was seen once."""

    store: StoreWatch

    def collect(self) -> Iterator[Metric]:
        yield GaugeMetricFamily(
            "ratchet_store_up", "Whether the store and the broker answered when last asked.", value=float(self.store.up)
        )
        status = self.store.status
        if status is None:
            return
        events = CounterMetricFamily("ratchet_events", "Events that are stored.", labels=["kind"])
        for kind, count in status.events.items():
            events.add_metric([kind], count)
        yield events
        branches = CounterMetricFamily("ratchet_branches", "Alternatives, by what became of them.", labels=["result"])
        branches.add_metric(["executed"], status.branches.executed)
        branches.add_metric(["timeout"], status.branches.timeouts)
        branches.add_metric(["died"], status.branches.deaths)
        yield branches
        states = CounterMetricFamily("ratchet_branch_states", "States to branch from, by result.", labels=["result"])
        states.add_metric(["restored"], status.branches.states - status.branches.dropped)
        states.add_metric(["dropped"], status.branches.dropped)
        yield states
        dropped = CounterMetricFamily(
            "ratchet_dropped", "Dropped states and failed episodes, by why.", labels=["reason"]
        )
        for reason, count in status.dropped.items():
            dropped.add_metric([reason], count)
        yield dropped
        episodes = GaugeMetricFamily("ratchet_episodes", "Episodes, by state and by why.", labels=["state", "reason"])
        for state, reasons in status.episodes.items():
            for reason, count in most_frequent(reasons).items():
                episodes.add_metric([state, reason], count)
        yield episodes
        failed = CounterMetricFamily("ratchet_failed_episodes", "Failed episodes resumed.", labels=["result"])
        failed.add_metric(["attempted"], status.recoveries.episodes - status.recoveries.dropped)
        failed.add_metric(["dropped"], status.recoveries.dropped)
        yield failed
        practised = GaugeMetricFamily(
            "ratchet_practice_tasks", "Practised tasks by how they went last.", labels=["bucket"]
        )
        for bucket, count in status.practice.tasks.items():
            practised.add_metric([bucket], count)
        yield practised
        for name, meaning, value in (
            ("ratchet_practice_episodes", "Episodes practised between cycles.", status.practice.episodes),
            ("ratchet_practice_successes", "Those of them that succeeded.", status.practice.successes),
            ("ratchet_practice_advised", "Practised successes with advice in the prompt.", status.practice.advised),
            ("ratchet_practice_steps", "Steps of episodes practised.", status.practice.steps),
            ("ratchet_practice_unusable", "Practised episodes not learned from.", status.practice.unusable),
            ("ratchet_recovery_attempts", "Continuations of failed episodes.", status.recoveries.attempts),
            ("ratchet_recovery_steps", "Sandbox steps of continuations.", status.recoveries.sandbox_steps),
            ("ratchet_recoveries", "Failed episodes turned into verified successes.", status.recoveries.recoveries),
            ("ratchet_duplicates", "Records whose event was stored before.", status.duplicates),
            ("ratchet_dead_letters", "Records that could not be read.", status.dead_letters),
            ("ratchet_quarantined", "Events that were not let in.", status.quarantined),
            ("ratchet_gaps", "Offsets that the log did not give.", status.gaps),
        ):
            yield CounterMetricFamily(name, meaning, value=value)
        redactions = CounterMetricFamily("ratchet_redactions", "Values replaced by placeholders.", labels=["kind"])
        for kind, count in status.redactions.items():
            redactions.add_metric([kind], count)
        yield redactions
        yield GaugeMetricFamily(
            "ratchet_flagged_episodes", "Episodes that are never learned from.", value=status.flagged
        )
        transitions = CounterMetricFamily("ratchet_transitions", "Transitions that are stored.", labels=["origin"])
        for origin, count in status.transitions.items():
            transitions.add_metric([origin], count)
        yield transitions
        lag = GaugeMetricFamily(
            "ratchet_consumer_lag", "Records of the log that are not stored yet.", labels=["topic", "partition"]
        )
        for (topic, partition), records in self.store.lag.items():
            lag.add_metric([topic, str(partition)], records)
        yield lag
