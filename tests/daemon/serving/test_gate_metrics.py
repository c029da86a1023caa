"""What Prometheus reads of gates, whatever a gate calls itself and its figures."""

import math
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from daemon.registry.audit import GENESIS, Action, AuditEntry
from daemon.registry.lifecycle import State
from daemon.registry.schemas import BASE, CycleReport
from daemon.serving.gate_metrics import gate_metrics
from evaluation.gates.verdict import GateResult, Verdict

Labels = frozenset[tuple[str, str]]
A, B = "a" * 64, "b" * 64


def entry(sequence: int, adapter: str = A, **parts: object) -> AuditEntry:
    fields = {"actor": "learner", "action": Action.MOVED, "subject": adapter, "reason": "r", "at": datetime.now(UTC)}
    return AuditEntry.model_validate(fields | {"sequence": sequence, "previous": GENESIS, "hash": GENESIS} | parts)


def cycle(sequence: int, verdict: Verdict, *gates: GateResult) -> AuditEntry:
    report = CycleReport(
        cycle=sequence,
        adapter=A,
        champion=BASE,
        verdict=verdict,
        reason="r",
        champion_success=None,
        candidate_success=None,
        tasks=0,
        gates=gates,
        seconds=1.0,
    )
    return entry(sequence, action=Action.CYCLE, cycle=report)


def result(gate: str, verdict: Verdict = Verdict.PROMOTE, figures: Mapping[str, object] | None = None) -> GateResult:
    return GateResult.model_validate({"gate": gate, "verdict": verdict, "reason": "r", "figures": figures or {}})


def exposed(*entries: AuditEntry) -> dict[str, dict[Labels, float]]:
    """Every series as Prometheus would read it; none may come twice."""

    class Own(Collector):
        def collect(self):  # type: ignore[no-untyped-def]  # as prometheus_client declares it
            return gate_metrics(entries)

    registry = CollectorRegistry()
    registry.register(Own())
    found: dict[str, dict[Labels, float]] = {}
    for family in text_string_to_metric_families(generate_latest(registry).decode()):
        for sample in family.samples:
            series, labels = found.setdefault(sample.name, {}), frozenset(sample.labels.items())
            assert labels not in series
            series[labels] = sample.value
    return found


def labels(**given: str) -> Labels:
    return frozenset(given.items())


def test_verdicts_are_counted_by_candidate_as_ever_and_by_gate_beside_it() -> None:
    held = (result("improvement"), result("sentinels", Verdict.HOLD))
    seen = exposed(cycle(1, Verdict.PROMOTE, result("improvement")), cycle(2, Verdict.HOLD, *held))
    assert seen["ratchet_gate_verdicts_total"] == {
        labels(verdict="PROMOTE"): 1,
        labels(verdict="HOLD"): 1,
        labels(gate="improvement", verdict="PROMOTE"): 2,
        labels(gate="sentinels", verdict="HOLD"): 1,
    }


def test_the_numbers_of_the_last_trial_are_figures() -> None:
    first = cycle(1, Verdict.REJECT, result("improvement", figures={"tasks": 9, "old": 1}))
    last = {"tasks": 32, "e_value": 2.5, "decided": True, "stopped": False, "families": "none", "share": None}
    seen = exposed(first, cycle(2, Verdict.PROMOTE, result("improvement", figures=last)), entry(3))
    assert {dict(each)["figure"]: value for each, value in seen["ratchet_gate_figure"].items()} == {
        "tasks": 32,
        "e_value": 2.5,
        "decided": 1,
        "stopped": 0,
    }
    assert {dict(each)["gate"] for each in seen["ratchet_gate_figure"]} == {"improvement"}


@pytest.mark.parametrize("name", ["", " ", "a b", 'a"b', "a\nb", "a\\b", "a{b}", "φ", "\x00", "\r\n", "x" * 9000])
def test_a_gate_and_a_figure_may_have_any_name(name: str) -> None:
    seen = exposed(cycle(1, Verdict.PROMOTE, result(name or "g", figures={name: 1.5})))
    ((found, value),) = seen["ratchet_gate_figure"].items()
    assert value == 1.5
    assert dict(found)["figure"] == name[:100]


def test_no_gate_makes_the_page_unreadable_or_endless() -> None:
    many = {f"figure {number}": number for number in range(1000)}
    twins = {"n": 10**400, "x" * 100 + "one": 1, "x" * 100 + "two": 2}
    gates = [result(f"gate {number}", figures=many) for number in range(200)]
    same = [result("same", figures={"tasks": number}) for number in (1, 2)]
    seen = exposed(cycle(1, Verdict.PROMOTE, *gates), cycle(2, Verdict.PROMOTE, *same, result("huge", figures=twins)))
    figures = {(dict(each)["gate"], dict(each)["figure"]): value for each, value in seen["ratchet_gate_figure"].items()}
    assert figures == {("same", "tasks"): 2, ("huge", "x" * 100): 2}
    assert len(seen["ratchet_gate_verdicts_total"]) <= 51
    assert len(exposed(cycle(1, Verdict.PROMOTE, *gates))["ratchet_gate_figure"]) == 50 * 50


def test_candidates_that_wait_are_counted_and_the_age_of_the_oldest_is_told() -> None:
    assert exposed()["ratchet_held_adapters"] == {labels(): 0}
    assert exposed()["ratchet_held_oldest_age_seconds"] == {labels(): 0}
    now = datetime.now(UTC)
    entries = [
        entry(1, A, state=State.HELD, at=now - timedelta(hours=2)),
        entry(2, B, state=State.HELD, at=now - timedelta(hours=1)),
    ]
    seen = exposed(*entries)
    assert seen["ratchet_held_adapters"] == {labels(): 2}
    assert math.isclose(seen["ratchet_held_oldest_age_seconds"][labels()], 7200, abs_tol=60)
    seen = exposed(*entries, entry(3, A, state=State.REJECTED))
    assert seen["ratchet_held_adapters"] == {labels(): 1}
    assert math.isclose(seen["ratchet_held_oldest_age_seconds"][labels()], 3600, abs_tol=60)
