"""The gate `recorded`: its decision from answers that are written here, and what it asks a real server."""

from dataclasses import replace

import pytest

from evaluation.gates.recorded import Answer, Answered, Comparison, Recorded, decide, is_valid
from evaluation.gates.verdict import Verdict
from evaluation.settings import GateSettings, RecordedSettings
from learners.held_out_states import RecordedState
from ratchet_client.messages import Message, Tools, assistant, call, user
from streams.errors import GateError
from streams.policy.client import PolicyClient, Sampling
from streams.trust.holdout import HoldoutSettings
from tests.builders.trained import tool
from tests.builders.trials import BASE, CANDIDATE, evidence

TOOLS: Tools = (tool("search", "query"), tool("open", "place"))
GOOD = Answer(agrees=True, valid=True, likelihood=-1.0)
BAD = Answer(agrees=False, valid=True, likelihood=-1.0)


def states(count: int, action: Message | None = None) -> tuple[RecordedState, ...]:
    return tuple(
        RecordedState(f"e{n}", f"shop/{n}", 0, (user(f"Customer {n} asks."),), (), action or assistant("Yes."))
        for n in range(count)
    )


def decided(*answers: Answered) -> Verdict:
    return decide(Comparison.of(answers), 0.05)[0]


def on_tasks(count: int, champion: Answer, candidate: Answer, first: int = 0) -> list[Answered]:
    return [Answered(f"shop/{number}", champion, candidate) for number in range(first, first + count)]


def test_more_agreement_promotes_less_rejects_and_little_is_inconclusive() -> None:
    assert decided(*on_tasks(5, BAD, GOOD)) is Verdict.PROMOTE
    assert decided(*on_tasks(5, GOOD, BAD)) is Verdict.REJECT
    assert decided(*on_tasks(4, BAD, GOOD)) is Verdict.INCONCLUSIVE
    assert decided(*on_tasks(100, GOOD, GOOD)) is Verdict.INCONCLUSIVE
    assert decided() is Verdict.INCONCLUSIVE


@pytest.mark.parametrize("worse", [replace(GOOD, valid=False), replace(GOOD, likelihood=-1.5)])
def test_agreement_is_worth_nothing_with_broken_calls_or_less_likely_trusted_actions(worse: Answer) -> None:
    assert decided(*on_tasks(20, BAD, GOOD), *on_tasks(9, GOOD, worse, first=20)) is Verdict.REJECT


def test_states_of_one_task_and_its_variants_are_one_unit() -> None:
    one_task = [Answered("shop/1", BAD, GOOD)] * 50
    assert decided(*one_task) is Verdict.INCONCLUSIVE
    assert decided(*[Answered(f"shop/1~{n}", BAD, GOOD) for n in range(50)]) is Verdict.INCONCLUSIVE


@pytest.mark.parametrize(
    ("action", "valid"),
    [
        (assistant(None, call("search", '{"query": "x"}')), True),
        (assistant(None, call("search", '{"query": 1}')), False),
        (assistant(None, call("search", "{}")), False),
        (assistant(None, call("search", '{"query": ')), False),
        (assistant(None, call("delete", '{"query": "x"}')), False),
        (assistant(None, call("search", '{"query": "x"}'), call("delete", "{}")), False),
        (assistant("Which one?"), True),
        (assistant("  "), False),
    ],
)
def test_a_call_is_valid_that_parses_names_an_offered_tool_and_fits_its_schema(action: Message, valid: bool) -> None:
    assert is_valid(action, TOOLS) is valid


async def test_without_a_canary_or_enough_tasks_or_on_train_tasks_nothing_is_judged() -> None:
    trial = evidence()
    trial.recorded = states(50)
    with pytest.raises(GateError, match=r"canary\.share"):
        await Recorded(GateSettings()).judge(trial)
    trial.canary_share, trial.recorded = 0.1, states(5)
    with pytest.raises(GateError, match="5 held-out tasks"):
        await Recorded(GateSettings()).judge(trial)
    trial.recorded, trial.holdout = states(50), HoldoutSettings(selection=0.0, confirmation=0.0)
    with pytest.raises(GateError, match="belong to training"):
        await Recorded(GateSettings()).judge(trial)


async def test_a_model_that_is_judged_against_itself_is_inconclusive_and_labelled(policy: PolicyClient) -> None:
    trial = evidence()
    trial.arena = replace(trial.arena, policy=policy)
    trial.champion, trial.candidate, trial.canary_share = BASE, replace(CANDIDATE, served="base"), 0.1
    (said,) = await policy.chat("base", (user("Customer 0 asks."),), Sampling(max_tokens=4))
    trial.recorded = tuple(replace(state, adapter="base") for state in states(8, said.message))
    result = await Recorded(GateSettings(recorded=RecordedSettings(min_tasks=8, max_tokens=4))).judge(trial)
    assert result.verdict is Verdict.INCONCLUSIVE
    assert result.figures["sandbox"] is False
    assert "weaker" in result.reason
    assert "canary" in result.reason
    assert (result.figures["wins"], result.figures["losses"], result.figures["excluded"]) == (0, 0, 0)
    assert (result.figures["by_champion"], result.figures["states"]) == (8, 8)
    agreement = result.figures["champion_agreement"]
    assert isinstance(agreement, float)
    assert agreement >= 1 / 8
