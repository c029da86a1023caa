"""Figures of the learner, from what it says of itself and from the audit log. `metrics.py` exposes them.

The learn role listens on nothing, so the serve role shows them for it.
"""

import time
from collections.abc import Iterator

from prometheus_client.core import GaugeMetricFamily, Metric

from daemon.registry.learner_status import LearnerPhase, LearnerReport, LearnerStatus
from evaluation.gates.verdict import Verdict


def learner_metrics(report: LearnerReport) -> Iterator[Metric]:
    """The metrics that `report` gives. What belongs to a phase is absent in the others, and where no learner runs."""
    yield GaugeMetricFamily(
        "ratchet_learner_up",
        "1 if the learner lives, or ended the one cycle that it was asked for; it is taken for dead after 60 s of "
        "silence.",
        value=float(report.running or report.is_finished),
    )
    status = report.status
    if status is not None:
        yield GaugeMetricFamily(
            "ratchet_learner_silence_seconds",
            "Time since the learner last said what it is at.",
            value=max(0.0, time.time() - status.beat_at.timestamp()),
        )
    if status is not None and report.running:
        phases = GaugeMetricFamily("ratchet_learner_phase", "1 for what the learner is at.", labels=["phase"])
        for phase in LearnerPhase:
            phases.add_metric([phase.value], float(phase is status.phase))
        yield phases
        yield from _of_phase(status)
        yield GaugeMetricFamily(
            "ratchet_learner_failures",
            "Cycles in a row that failed before an adapter came of them.",
            value=status.failures,
        )
    last = report.last_cycle
    if last is not None:
        age = GaugeMetricFamily(
            "ratchet_learner_last_cycle_age_seconds", "Time since the last verdict on a candidate.", labels=["verdict"]
        )
        for verdict in Verdict:
            if verdict is last.verdict:
                age.add_metric([verdict.value], max(0.0, time.time() - last.at.timestamp()))
        yield age


def _of_phase(status: LearnerStatus) -> Iterator[Metric]:
    if status.new is not None:
        yield GaugeMetricFamily(
            "ratchet_learner_new_episodes", "Trusted episodes that no adapter has learned from.", value=status.new
        )
        yield GaugeMetricFamily(
            "ratchet_learner_needed_episodes",
            "Trusted episodes that no adapter has learned from that start a cycle.",
            value=status.needed,
        )
    if status.phase is LearnerPhase.BRANCHES:
        yield GaugeMetricFamily(
            "ratchet_learner_missing_branches", "Branches that a cycle that is due waits for.", value=status.missing
        )
    if status.total:
        yield GaugeMetricFamily(
            "ratchet_learner_done", "Updates of the training, or episodes that a gate has played.", value=status.done
        )
        yield GaugeMetricFamily(
            "ratchet_learner_planned",
            "Updates of the training, or episodes of a gate, that there will be at most.",
            value=status.total,
        )
    if status.left_s is not None:
        yield GaugeMetricFamily(
            "ratchet_learner_left_seconds", "Estimated time until the end of the training.", value=status.left_s
        )
    if status.loss is not None:
        loss = GaugeMetricFamily(
            "ratchet_learner_loss", "Loss of one update, in nats per counted token.", labels=["objective"]
        )
        for objective, value in (status.losses or {status.objective: status.loss}).items():
            loss.add_metric([objective], value)
        yield loss
    if status.memory_bytes:
        yield GaugeMetricFamily(
            "ratchet_learner_memory_bytes",
            "The most memory that the training process has had.",
            value=status.memory_bytes,
        )
    if status.tokens_per_s:
        yield GaugeMetricFamily(
            "ratchet_learner_tokens_per_second",
            "Tokens of one update over its time, reading and learning.",
            value=status.tokens_per_s,
        )
    if status.gradient_norm is not None:
        yield GaugeMetricFamily(
            "ratchet_learner_gradient_norm",
            "Norm of the gradient of one update, before it is clipped.",
            value=status.gradient_norm,
        )
