"""Figures of gates and of the candidates that wait for a person, from the audit log. `metrics.py` exposes them.

Gates may be anybody's, so nothing that one returns may make the page unreadable: names are cut, their number is
limited, and no series comes twice.
"""

import time
from collections import Counter as Tally
from collections.abc import Iterator, Sequence

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from daemon.registry.approval import held
from daemon.registry.audit import AuditEntry
from daemon.registry.ledger import history
from daemon.registry.schemas import CycleReport
from evaluation.gates.verdict import GateResult
from evaluation.settings import GateSettings
from evaluation.spending import allowed, lord

_MOST_GATES = 50
_MOST_FIGURES = 50
_LONGEST_NAME = 100


def gate_metrics(entries: Sequence[AuditEntry]) -> Iterator[Metric]:
    """The metrics that the `entries` of the audit log give."""
    cycles = [entry.cycle for entry in entries if entry.cycle]
    verdicts = CounterMetricFamily(
        "ratchet_gate_verdicts",
        'Verdicts on candidates; select them by `gate=""`, since those of each gate have a label `gate`.',
        labels=["verdict"],
    )
    for verdict, count in Tally(cycle.verdict.value for cycle in cycles).items():
        verdicts.add_metric([verdict], count)
    of_gates = Tally((_cut(result.gate), result.verdict.value) for cycle in cycles for result in cycle.gates)
    named = _most_frequent_gates(of_gates)
    for (gate, verdict), count in of_gates.items():
        if gate in named:
            verdicts.add_sample("ratchet_gate_verdicts_total", {"gate": gate, "verdict": verdict}, count)
    yield verdicts
    figures = GaugeMetricFamily(
        "ratchet_gate_figure",
        "Numbers that the gates of the last trial rest on, such as the power; up to 50 of a gate.",
        labels=["gate", "figure"],
    )
    for labels, value in _figures(cycles[-1].gates if cycles else ()).items():
        figures.add_metric(labels, value)
    yield figures
    if cycles:
        yield from _of_trial(cycles[-1])
    waiting = held(entries)
    yield GaugeMetricFamily("ratchet_held_adapters", "Candidates that wait for a person.", value=len(waiting))
    yield GaugeMetricFamily(
        "ratchet_held_oldest_age_seconds",
        "How long the oldest of the candidates that wait for a person has waited; 0 without any.",
        value=max(0.0, time.time() - waiting[0].at.timestamp()) if waiting else 0.0,
    )


def alpha_metrics(entries: Sequence[AuditEntry], settings: GateSettings) -> Iterator[Metric]:
    """The alpha of the next gate, and what all gates until the next promotion may spend, by LORD++."""
    if settings.spending == "constant":
        following = settings.alpha
    else:
        spent = history(entries)
        following = lord(spent, settings.alpha)
        promotions = sum(gate.is_promoted for gate in spent)
        yield GaugeMetricFamily(
            "ratchet_gate_alpha_left",
            "Probability of wrong promotions that gates may still spend before the next promotion earns more.",
            value=max(0.0, allowed(promotions, settings.alpha) - sum(gate.alpha for gate in spent)),
        )
    yield GaugeMetricFamily(
        "ratchet_gate_alpha_next", "Probability of a wrong promotion that the next gate may spend.", value=following
    )


def _of_trial(cycle: CycleReport) -> Iterator[Metric]:
    success = GaugeMetricFamily(
        "ratchet_trial_success_ratio", "Share of the tasks of the last trial that a side solved.", labels=["side"]
    )
    for side, value in (("champion", cycle.champion_success), ("candidate", cycle.candidate_success)):
        if value is not None:
            success.add_metric([side], value)
    yield success
    yield GaugeMetricFamily("ratchet_trial_tasks", "Tasks that both sides of the last trial played.", value=cycle.tasks)


def _figures(results: Sequence[GateResult]) -> dict[tuple[str, str], float]:
    found: dict[tuple[str, str], float] = {}
    for result in results[:_MOST_GATES]:
        own: dict[tuple[str, str], float] = {}
        for name, figure in result.figures.items():
            value = _number(figure)
            if value is not None and len(own) < _MOST_FIGURES:
                own[_cut(result.gate), _cut(name)] = value
        found |= own
    return found


def _number(figure: object) -> float | None:
    if not isinstance(figure, int | float):
        return None
    try:
        return float(figure)
    except OverflowError:
        return None


def _most_frequent_gates(verdicts: Tally[tuple[str, str]]) -> set[str]:
    total: Tally[str] = Tally()
    for (gate, _), count in verdicts.items():
        total[gate] += count
    return {gate for gate, _ in total.most_common(_MOST_GATES)}


def _cut(name: str) -> str:
    return name[:_LONGEST_NAME]
