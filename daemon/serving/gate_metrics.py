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
from evaluation.gates.verdict import GateResult

_MOST_GATES = 50
_MOST_FIGURES = 50
_LONGEST_NAME = 100


def gate_metrics(entries: Sequence[AuditEntry]) -> Iterator[Metric]:
    """The metrics that the `entries` of the audit log give."""
    cycles = [entry.cycle for entry in entries if entry.cycle]
    verdicts = CounterMetricFamily(
        "ratchet_gate_verdicts",
        "Verdicts on candidates, and with a label `gate` those of each gate.",
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
        "ratchet_gate_figure", "Figures that the gates of the last trial rest on.", labels=["gate", "figure"]
    )
    for labels, value in _figures(cycles[-1].gates if cycles else ()).items():
        figures.add_metric(labels, value)
    yield figures
    waiting = held(entries)
    yield GaugeMetricFamily("ratchet_held_adapters", "Candidates that wait for a person.", value=len(waiting))
    yield GaugeMetricFamily(
        "ratchet_held_oldest_age_seconds",
        "How long the oldest of the candidates that wait for a person has waited; 0 without any.",
        value=max(0.0, time.time() - waiting[0].at.timestamp()) if waiting else 0.0,
    )


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
