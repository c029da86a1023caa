"""What comes of a trace: an append-only conversation is one episode, whatever order its spans came in."""

import itertools
from typing import Any

import pytest

from ratchet_client.events import EVENT, OutcomeEvent, StepEvent
from ratchet_client.ids import content_id
from ratchet_client.messages import user
from streams.assembly.assembly import Assembly, assemble
from streams.otlp.records import AnyRecord
from streams.trust.rules import branch_request
from tests.builders.spans import (
    PLAY,
    TRACE,
    conventions,
    evaluation,
    game,
    openinference,
    openllmetry,
    root,
    span,
    states,
    stored,
)


def steps_of(assembly: Assembly) -> list[StepEvent]:
    return [event for event in assembly.events if isinstance(event, StepEvent)]


@pytest.mark.parametrize("dialect", [conventions, openllmetry, openinference])
def test_a_trace_becomes_an_append_only_conversation(dialect: Any) -> None:
    steps = steps_of(assemble("run-1", game(dialect=dialect), {}))
    assert [step.episode_id for step in steps] == ["run-1"] * 3
    seen = [(step.action.content, step.observation) for step in steps]
    assert seen == [*((said, (user(heard),)) for said, heard in PLAY[:2]), (PLAY[2][0], ())]
    assert [(step.step, step.done) for step in steps] == [(0, False), (1, False), (2, True)]
    for step, after in itertools.pairwise(steps):
        assert after.messages == (*step.messages, step.action, *step.observation)
    assert {(step.actor.kind, step.actor.adapter, step.task.environment) for step in steps} == {
        ("policy", "ratchet-7", "otlp")
    }
    assert all(EVENT.validate_json(step.to_json()) == step for step in steps)
    assert branch_request("run-1", stored(steps), "trusted") is not None


def test_the_order_of_arrival_changes_nothing() -> None:
    spans = game()
    assert {assemble("run", order, {}).events for order in itertools.permutations(spans)} == {
        assemble("run", spans, {}).events
    }


def test_attributes_of_the_trace_hold_for_its_steps() -> None:
    told = {
        "gen_ai.agent.name": "player",
        "user.id": "ann",
        "ratchet.task.environment": "kitchen",
        "ratchet.task.id": "k/1",
        "ratchet.task.seed": "17",
    }
    (step,) = steps_of(assemble("run", [*game(1)[:1], root(told)], {}))
    assert (step.agent, step.principal) == ("player", "ann")
    assert step.task.model_dump() == {"environment": "kitchen", "task_id": "k/1", "seed": 17}
    (step,) = steps_of(assemble("run", game(1, resource={"service.name": "shop"}), {}))
    assert (step.agent, step.principal) == ("shop", "shop")
    (step,) = steps_of(assemble("run", [span(1, conventions(*states()[0]), principal="eve"), root(told)], {}))
    assert step.principal == "eve"


@pytest.mark.parametrize("seed", ["", "x", "9" * 30, 2.5, True, None])
def test_a_malformed_seed_is_zero(seed: Any) -> None:
    (step,) = steps_of(assemble("run", [*game(1)[:1], root({"ratchet.task.seed": seed})], {}))
    assert step.task.seed == 0


def test_a_task_without_a_name_is_identified_by_its_first_request() -> None:
    early = steps_of(assemble("one", game(1), {}))[0]
    late = steps_of(assemble("two", [span(3, conventions(*states()[2]))], {}))[0]
    assert (
        early.task.task_id
        == late.task.task_id
        == content_id("otlp-task", "system", "You play.", "user", "You are in a kitchen.")
    )


def test_the_environment_of_what_names_none_is_the_one_that_is_set() -> None:
    assert {step.task.environment for step in steps_of(assemble("run", game(), {}))} == {"otlp"}
    assert {step.task.environment for step in steps_of(assemble("run", game(), {}, environment="shop"))} == {"shop"}
    named = steps_of(assemble("run", [*game(), root({"ratchet.task.environment": "desk"})], {}, environment="shop"))
    assert {step.task.environment for step in named} == {"desk"}


def test_concurrent_chats_of_one_trace_are_separate_episodes() -> None:
    judge = [span(10 + n, conventions([("user", f"Judge {n}")], "fine")) for n in range(2)]
    steps = steps_of(assemble("run", [*judge, *game()], {}))
    assert [step.episode_id for step in steps] == [*["run"] * 3, *(f"run/{span.span_id}" for span in judge)]


def test_a_missing_call_ends_the_episode() -> None:
    first, _, third, _ = game()
    steps = steps_of(assemble("run", [first, third], {}))
    assert [(step.episode_id, step.step, step.observation, step.done) for step in steps] == [
        ("run", 0, (), True),
        (f"run/{third.span_id}", 0, (), True),
    ]


def test_calls_that_come_after_the_episode_was_closed_are_a_further_one() -> None:
    first, second, third, _ = game()
    before = assemble("run", [first], {})
    after = assemble("run", [third, second], before.episodes)
    assert [(step.episode_id, step.step) for step in steps_of(after)] == [
        (f"run/{second.span_id}", 0),
        (f"run/{second.span_id}", 1),
    ]


def test_a_reply_that_was_trimmed_is_taken_as_the_agent_took_it() -> None:
    (seen, _), second = states(2)
    steps = steps_of(assemble("run", [span(1, conventions(seen, " open fridge\n")), span(2, conventions(*second))], {}))
    assert [step.action.content for step in steps] == ["open fridge", "take apple"]
    assert steps[0].observation == (user("The fridge is open."),)


def test_calls_without_content_are_counted() -> None:
    assembly = assemble("run", [span(1, {"gen_ai.operation.name": "chat"}), root()], {})
    assert (assembly.events, assembly.without_content) == ((), 1)


def test_an_event_that_no_broker_takes_is_counted() -> None:
    assembly = assemble("run", game(), {}, max_event_bytes=600)
    assert len(assembly.events) < 3
    assert assembly.too_large == 3 - len(assembly.events)


def test_an_episode_of_which_a_step_is_too_large_is_flagged() -> None:
    passed = evaluation(1, score_label="pass")
    sizes = [len(step.to_json()) for step in steps_of(assemble("run", game(), {}))]
    assert sizes == sorted(sizes)
    for limit in (sizes[2] - 1, sizes[1] + 1, sizes[0] + 80):
        assembly = assemble("run", [*game(), passed], {}, max_event_bytes=limit)
        assert {step.flag for step in steps_of(assembly)} == {"another event of its episode is too large to publish"}
        assert all(len(event.to_json()) <= limit for event in assembly.events)
        assert assembly.too_large == 4 - len(assembly.events)
    beside = span(9, conventions([("user", "x" * 3000)], "look"))
    assembly = assemble("run", [*game(), beside, passed], {}, max_event_bytes=2500)
    assert ([step.flag for step in steps_of(assembly)], assembly.too_large) == ([None] * 3, 1)


def test_an_evaluation_that_is_too_large_flags_the_steps_that_it_judges() -> None:
    verdicts = [evaluation(1, score_label="fail", explanation="x" * 3000), evaluation(2, score_label="pass")]
    assembly = assemble("run", [*game(), *verdicts], {}, max_event_bytes=2500)
    assert assembly.too_large == 1
    assert {step.flag for step in steps_of(assembly)} == {"another event of its episode is too large to publish"}


@pytest.mark.parametrize(
    ("said", "success", "score"),
    [
        ({"score_label": "pass", "score_value": 0.9}, True, 0.9),
        ({"score_label": "FAILED"}, False, 0.0),
        ({"passed": True}, True, 1.0),
        ({"passed": False, "score_label": "pass", "score_value": 1}, False, 1.0),
    ],
)
@pytest.mark.parametrize("number", [2, 99, 0])
def test_an_evaluation_is_the_outcome_of_the_episode_of_its_span(
    said: dict[str, Any], success: bool, score: float, number: int
) -> None:
    records: list[AnyRecord] = [*game(), evaluation(number, explanation="because", **said)]
    (outcome,) = (event for event in assemble("run", records, {}).events if isinstance(event, OutcomeEvent))
    assert (outcome.episode_id, outcome.verifier, outcome.success) == ("run", "task_success", success)
    assert outcome.score == score
    assert outcome.evidence["explanation"] == "because"


def test_an_evaluation_may_come_long_after_its_episode() -> None:
    before = assemble("run", game(), {})
    (outcome,) = assemble("run", [evaluation(3, score_label="pass")], before.episodes).events
    assert outcome.episode_id == "run"


def test_evaluations_that_decide_nothing_are_counted() -> None:
    records: list[AnyRecord] = [*game(), evaluation(1, score_value=0.7), evaluation(1, score_label="relevant")]
    assert assemble("run", records, {}).unusable_evaluations == 2
    assert assemble("run", [evaluation(1, score_label="pass")], {}).unusable_evaluations == 1
    chosen = assemble("run", [*game(), evaluation(1, score_label="pass")], {}, evaluations=("other",))
    assert (len(chosen.events), chosen.unusable_evaluations) == (3, 0)


def test_ids_are_scoped_to_the_owner_of_the_token() -> None:
    ids = {
        step.event_id
        for principal in (None, "ann", "bob")
        for step in steps_of(assemble(TRACE, game(principal=principal), {}))
    }
    assert len(ids) == 9
