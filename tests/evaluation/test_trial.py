"""How the verdicts of several gates become one, and what a gate that fails does to it."""

import asyncio
from dataclasses import dataclass, field, replace
from importlib.metadata import EntryPoint, EntryPoints
from typing import Any, ClassVar, cast

import pytest

from evaluation.gates import registry
from evaluation.gates.gate import Evidence, Gate, TaskLists
from evaluation.gates.registry import load_gates
from evaluation.gates.verdict import GateResult, Verdict, combined
from evaluation.report import GateReport
from evaluation.scored_replies import each
from evaluation.settings import GateSettings
from evaluation.trial import hold_trial
from ratchet_client.errors import ConfigurationError
from streams.errors import GateError, PolicyError
from streams.policy.client import PolicyClient
from streams.sandboxes.pool import SandboxPool
from streams.trust.holdout import HoldoutSettings, Split
from tests.builders.scripted import ScriptedServer
from tests.builders.trials import CANDIDATE, CHAMPION, evidence, tasks


@dataclass
class Judging:
    """A gate that returns `verdict`, or raises `error`; `asked` counts."""

    verdict: Verdict = Verdict.PROMOTE
    error: Exception | None = None
    asked: list[int] = field(default_factory=list)

    name: ClassVar[str] = "judging"
    plays: ClassVar[bool] = False

    async def judge(self, evidence: Evidence) -> GateResult:
        self.asked.append(len(evidence.results))
        if self.error is not None:
            raise self.error
        return GateResult(gate=self.name, verdict=self.verdict, reason=f"Because of {self.verdict.value}.")


class Playing(Judging):
    plays: ClassVar[bool] = True


@pytest.mark.parametrize(
    ("verdicts", "together"),
    [
        ("PROMOTE PROMOTE", "PROMOTE"),
        ("PROMOTE HOLD", "HOLD"),
        ("HOLD INCONCLUSIVE", "INCONCLUSIVE"),
        ("INCONCLUSIVE REJECT HOLD", "REJECT"),
        ("", "INCONCLUSIVE"),
    ],
)
def test_only_if_every_gate_promotes_is_a_candidate_promoted(verdicts: str, together: str) -> None:
    results = [GateResult(gate="one", verdict=Verdict(each), reason=f"{each}.") for each in verdicts.split()]
    verdict, reason = combined(results)
    assert verdict.value == together
    assert not verdicts or reason == f"{together}." + f" {together}." * (verdicts.split().count(together) - 1)


class Hanging(Judging):
    """A gate that never ends by itself; `asked` notes that it was cancelled."""

    async def judge(self, evidence: Evidence) -> GateResult:
        try:
            await asyncio.sleep(3600)
        finally:
            self.asked.append(-1)
        raise AssertionError


@pytest.mark.parametrize("limit", [{"time_limit_s": 0.05}, {"time_limits_s": {"judging": 0.05}}])
async def test_a_gate_that_hangs_is_ended_and_the_trial_goes_on(
    limit: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    ended: list[str] = []

    async def end_groups(self: SandboxPool, *groups: str) -> None:
        ended.append("all")

    monkeypatch.setattr(SandboxPool, "end_groups", end_groups)
    trial, hanging = evidence(), Hanging()
    verdict, reason = await hold_trial(trial, [hanging, Judging()], GateSettings(**limit))
    assert verdict is Verdict.INCONCLUSIVE
    assert "The gate judging" in reason
    assert "gate.time_limit" in reason
    assert (hanging.asked, ended, len(trial.results)) == ([-1], ["all"], 2)


class Cancelling(Judging):
    async def judge(self, evidence: Evidence) -> GateResult:
        raise asyncio.CancelledError


async def test_a_gate_that_cancels_itself_is_inconclusive_and_a_trial_that_is_cancelled_ends_its_gate() -> None:
    trial = evidence()
    assert (await hold_trial(trial, [Cancelling(), Judging()]))[0] is Verdict.INCONCLUSIVE
    assert len(trial.results) == 2
    hanging = Hanging()
    holding = asyncio.create_task(hold_trial(evidence(), [hanging]))
    for _ in range(5):
        await asyncio.sleep(0)
    holding.cancel()
    with pytest.raises(asyncio.CancelledError):
        await holding
    await asyncio.sleep(0)
    assert hanging.asked == [-1]


async def test_gates_see_what_those_before_them_returned_and_costly_ones_are_passed_over_after_a_failure() -> None:
    gates = [Judging(), Judging(Verdict.INCONCLUSIVE), Playing(), Judging(Verdict.HOLD)]
    verdict, reason = await hold_trial(evidence(), gates)
    assert [gate.asked for gate in gates] == [[0], [1], [], [2]]
    assert (verdict, reason) == (Verdict.INCONCLUSIVE, "Because of INCONCLUSIVE.")


async def test_after_a_hold_costly_gates_are_still_played_so_that_a_person_knows_the_whole() -> None:
    gates = [Judging(Verdict.HOLD), Playing()]
    assert (await hold_trial(evidence(), gates))[0] is Verdict.HOLD
    assert gates[1].asked == [1]


@pytest.mark.parametrize("error", [GateError("no tasks are left"), ZeroDivisionError("division by zero")])
async def test_a_gate_that_fails_never_promotes(error: Exception) -> None:
    trial = evidence()
    verdict, reason = await hold_trial(trial, [Judging(), Judging(error=error)])
    assert verdict is Verdict.INCONCLUSIVE
    assert "The gate judging could not be played" in reason
    assert str(error) in reason


async def test_a_trial_refuses_tasks_of_the_training() -> None:
    holdout = HoldoutSettings()
    seen = next(task for task in tasks(100) if holdout.split(task.task_id) is Split.TRAIN)
    trial, gate = evidence(), Judging()
    trial.holdout, trial.tasks = holdout, TaskLists(selection=(), golden=(seen,))
    with pytest.raises(GateError, match="belongs to training"):
        await hold_trial(trial, [gate])
    assert gate.asked == []


async def test_unsolvable_tasks_need_not_be_held_out() -> None:
    holdout = HoldoutSettings()
    seen = next(task for task in tasks(100) if holdout.split(task.task_id) is Split.TRAIN)
    trial = evidence()
    trial.holdout, trial.tasks = holdout, TaskLists(selection=(), unsolvable=(seen,))
    assert (await hold_trial(trial, [Judging()]))[0] is Verdict.PROMOTE


def test_gates_are_found_by_name_and_an_unknown_one_is_refused() -> None:
    loaded: tuple[Gate, ...] = load_gates(["improvement", "sentinels"], GateSettings())
    assert [gate.name for gate in loaded] == ["improvement", "sentinels"]
    with pytest.raises(ConfigurationError, match=r"'astrology', which is not installed; known are: .*improvement"):
        load_gates(["astrology"], GateSettings())


@dataclass
class Returning:
    """A gate of anybody's that returns whatever it was given."""

    said: object

    name: ClassVar[str] = "returning"
    plays: ClassVar[bool] = False

    async def judge(self, evidence: Evidence) -> GateResult:
        return cast(GateResult, self.said)


BETTER = GateResult(gate="returning", verdict=Verdict.PROMOTE, reason="It is better.")


@pytest.mark.parametrize(
    ("said", "why"),
    [
        (None, "it returned NoneType and not a GateResult"),
        ((Verdict.PROMOTE, "It is better."), "it returned tuple"),
        (BETTER.model_copy(update={"gate": "improvement"}), "in the name of the gate 'improvement'"),
        (BETTER.model_copy(update={"verdict": "PERHAPS"}), "cannot be written down and read back"),
        (BETTER.model_copy(update={"figures": {"tasks": 10**5000}}), "cannot be written down and read back"),
        (BETTER.model_copy(update={"figures": {"worst": "half of \ud800"}}), "cannot be written down and read back"),
    ],
)
async def test_a_gate_that_returns_no_result_of_its_own_never_promotes_and_its_trial_is_kept(
    said: object, why: str
) -> None:
    trial = evidence()
    verdict, reason = await hold_trial(trial, [Judging(), Returning(said)])
    assert verdict is Verdict.INCONCLUSIVE
    assert why in reason
    report = GateReport.of(trial, verdict, reason, GateSettings())
    assert GateReport.model_validate_json(report.model_dump_json()).gates == tuple(trial.results)


async def test_the_failure_of_a_gate_may_have_any_text() -> None:
    verdict, reason = await hold_trial(evidence(), [Judging(error=ValueError("half of \ud800"))])
    assert (verdict, "half of \\ud800" in reason) == (Verdict.INCONCLUSIVE, True)


@pytest.mark.parametrize("lost", ["the server", "the candidate", "nothing"])
async def test_a_gate_that_asks_a_server_which_is_away_says_nothing_of_the_candidate(lost: str) -> None:
    """Only a server that has both sides and refuses all the same is what makes a gate inconclusive."""

    async def refused(item: int) -> None:
        raise PolicyError("refused")

    class Asking(Judging):
        async def judge(self, evidence: Evidence) -> GateResult:
            await each([1, 2], refused, 2)
            raise AssertionError

    server, trial = ScriptedServer(lambda model, first, turn: ""), evidence()
    server.models = [CHAMPION.served, *([] if lost == "the candidate" else [CANDIDATE.served])]
    with server.running() as address:
        async with PolicyClient(address) as policy:
            trial.arena = replace(trial.arena, policy=policy)
            if lost == "the server":
                server.is_down.set()
            if lost == "nothing":
                assert (await hold_trial(trial, [Asking()]))[0] is Verdict.INCONCLUSIVE
            else:
                with pytest.raises(PolicyError):
                    await hold_trial(trial, [Asking()])
                assert trial.results == []


class Unlike:
    """What is no gate: it plays, but cannot judge."""

    name: ClassVar[str] = "mine"
    plays: ClassVar[bool] = True

    def __init__(self, settings: GateSettings) -> None: ...


class Nameless(Judging):
    def __init__(self, settings: GateSettings) -> None: ...


@pytest.mark.parametrize(
    ("classes", "why"),
    [
        (("Unlike",), "AttributeError"),
        (("Nameless",), "is none: it needs that `name`"),
        (("Unlike", "Nameless"), "several packages bring one"),
    ],
)
def test_an_entry_point_that_is_no_gate_of_its_name_is_refused(
    classes: tuple[str, ...], why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    points = EntryPoints(EntryPoint("mine", f"{__name__}:{each}", "ratchet.gates") for each in classes)
    monkeypatch.setattr(registry, "entry_points", lambda **asked: points)
    with pytest.raises(ConfigurationError, match=why):
        load_gates(["mine"], GateSettings())
