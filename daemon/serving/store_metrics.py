"""Metrics of what is stored, as the serve role last saw it. `metrics.py` exposes them; nothing before it was seen once.

Names of adapters are those that they served under; `production_metrics` tells them by their digest.
"""

from collections import Counter as Tally
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from daemon.registry.refs import Refs
from daemon.serving.store_watch import StoreWatch
from streams.store.reasons import DROP_REASONS, EPISODE_REASONS, by_kind
from streams.store.status import StoreStatus

_STAGES = ("ended", "judged", "trusted", "restored")


@dataclass(frozen=True, slots=True, eq=False)
class StoreMetrics(Collector):
    """Metrics of the store and of its lag behind the log."""

    store: StoreWatch

    def collect(self) -> Iterator[Metric]:
        yield GaugeMetricFamily(
            "ratchet_store_up",
            "1 if the store and the broker answered when last asked, every `serving.refresh_s`.",
            value=float(self.store.up),
        )
        status = self.store.status
        if status is None:
            return
        yield from _of_log(status)
        yield from _of_branching(status)
        yield from _of_episodes(status)
        yield from _of_practice(status)
        lag = GaugeMetricFamily(
            "ratchet_consumer_lag",
            "Records of events and transitions in the log that are not stored yet.",
            labels=["topic", "partition"],
        )
        for (topic, partition), records in self.store.lag.items():
            lag.add_metric([topic, str(partition)], records)
        yield lag


def production_metrics(
    status: StoreStatus, refs: Refs, digests: Mapping[str, str], foreign: Collection[str] = ()
) -> Iterator[Metric]:
    """Metrics of judged production by adapter; `digests` are by the names that adapters served under.

    The names `foreign` are of other groups' adapters.
    """
    production = GaugeMetricFamily(
        "ratchet_production_episodes",
        "Episodes of production that one adapter answered alone, by their outcome. `position` is champion, previous "
        "or earlier; a model's opinion is not an outcome.",
        labels=["adapter", "position", "success"],
    )
    counts: Tally[tuple[str, bool]] = Tally()
    for served, counted in status.production.items():
        if served in foreign:
            continue
        adapter = digests.get(served, served)
        counts[adapter, True] += counted.successes
        counts[adapter, False] += counted.episodes - counted.successes
    positions = {refs.previous: "previous", refs.champion: "champion"}
    for (adapter, success), count in counts.items():
        production.add_metric([adapter, positions.get(adapter, "earlier"), str(success).lower()], count)
    yield production


def _of_log(status: StoreStatus) -> Iterator[Metric]:
    """What was read of the log, and what was refused."""
    events = CounterMetricFamily(
        "ratchet_events",
        "Events stored; those of practice as `practice_step` and `practice_outcome`.",
        labels=["kind"],
    )
    for kind, count in status.events.items():
        events.add_metric([kind], count)
    yield events
    for name, meaning, value in (
        ("ratchet_duplicates", "Records whose event was stored before.", status.duplicates),
        ("ratchet_dead_letters", "Records that could not be read.", status.dead_letters),
        (
            "ratchet_quarantined",
            "Events that admission refused, or that redaction could not process.",
            status.quarantined,
        ),
        ("ratchet_gaps", "Offsets that are missing from the log.", status.gaps),
    ):
        yield CounterMetricFamily(name, meaning, value=value)
    redactions = CounterMetricFamily("ratchet_redactions", "Values replaced by placeholders.", labels=["kind"])
    for kind, count in status.redactions.items():
        redactions.add_metric([kind], count)
    yield redactions
    transitions = CounterMetricFamily(
        "ratchet_transitions", "Steps stored: of `production`, `branch` and `practice`.", labels=["origin"]
    )
    for origin, count in status.transitions.items():
        transitions.add_metric([origin], count)
    yield transitions
    yield GaugeMetricFamily(
        "ratchet_outbox_pending",
        "Messages that the store decided on and has not published.",
        value=status.outbox_pending,
    )


def _of_branching(status: StoreStatus) -> Iterator[Metric]:
    """What came of states and failed episodes in sandboxes."""
    branches = CounterMetricFamily(
        "ratchet_branches", "Alternatives: `executed`, and `timeout` or `died` of their sandbox.", labels=["result"]
    )
    branches.add_metric(["executed"], status.branches.executed)
    branches.add_metric(["timeout"], status.branches.timeouts)
    branches.add_metric(["died"], status.branches.deaths)
    yield branches
    states = CounterMetricFamily(
        "ratchet_branch_states", "States to branch from: `restored` and `dropped`.", labels=["result"]
    )
    states.add_metric(["restored"], status.branches.states - status.branches.dropped)
    states.add_metric(["dropped"], status.branches.dropped)
    yield states
    dropped = CounterMetricFamily(
        "ratchet_dropped", "Dropped states and failed episodes, by a closed list of reasons.", labels=["reason"]
    )
    for reason, count in by_kind(status.dropped, DROP_REASONS).items():
        dropped.add_metric([reason], count)
    yield dropped
    failed = CounterMetricFamily(
        "ratchet_failed_episodes", "Failed episodes: `attempted` to be recovered from, or `dropped`.", labels=["result"]
    )
    failed.add_metric(["attempted"], status.recoveries.episodes - status.recoveries.dropped)
    failed.add_metric(["dropped"], status.recoveries.dropped)
    yield failed
    for name, meaning, value in (
        ("ratchet_recovery_attempts", "Continuations of failed episodes.", status.recoveries.attempts),
        ("ratchet_recovery_steps", "Sandbox steps of continuations.", status.recoveries.sandbox_steps),
        ("ratchet_recoveries", "Failed episodes turned into verified successes.", status.recoveries.recoveries),
    ):
        yield CounterMetricFamily(name, meaning, value=value)


def _of_episodes(status: StoreStatus) -> Iterator[Metric]:
    """How far episodes came, and why not further."""
    episodes = GaugeMetricFamily(
        "ratchet_episodes",
        "Episodes by state, as `ratchet episodes` has them, and by a closed list of reasons.",
        labels=["state", "reason"],
    )
    for state, reasons in status.episodes.items():
        for reason, count in by_kind(reasons, EPISODE_REASONS).items():
            episodes.add_metric([state, reason], count)
    yield episodes
    funnel = GaugeMetricFamily(
        "ratchet_funnel_episodes",
        "Episodes of production that came so far: `ended`, `judged` by an outcome, `trusted` and to be learned from, "
        "`restored` in a sandbox.",
        labels=["stage"],
    )
    for stage in _STAGES:
        if stage in status.funnel:
            funnel.add_metric([stage], status.funnel[stage])
    yield funnel
    yield GaugeMetricFamily(
        "ratchet_flagged_episodes",
        "Episodes that are never learned from: injection signs, quotas, floods, flags of producers.",
        value=status.flagged,
    )
    yield GaugeMetricFamily(
        "ratchet_untrusted_episodes", "Episodes that lost trust by later events.", value=status.untrusted
    )


def _of_practice(status: StoreStatus) -> Iterator[Metric]:
    """What Ratchet played itself; it is in no other figure of episodes."""
    practised = GaugeMetricFamily(
        "ratchet_practice_tasks",
        "Practised tasks by how the adapter did that played them last: `solved`, `frontier`, `hopeless`.",
        labels=["bucket"],
    )
    for bucket, count in status.practice.tasks.items():
        practised.add_metric([bucket], count)
    yield practised
    for name, meaning, value in (
        ("ratchet_practice_episodes", "Episodes practised between cycles without advice.", status.practice.episodes),
        ("ratchet_practice_successes", "Episodes practised without advice that succeeded.", status.practice.successes),
        ("ratchet_practice_advised", "Practised successes with advice in the prompt.", status.practice.advised),
        ("ratchet_practice_steps", "Steps of episodes practised.", status.practice.steps),
        ("ratchet_practice_unusable", "Practised episodes that nothing is learned from.", status.practice.unusable),
    ):
        yield CounterMetricFamily(name, meaning, value=value)
