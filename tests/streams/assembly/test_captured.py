"""Captured calls become episodes by their ids or by the conversation itself; each case that must be told apart."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ratchet_client.events import StepEvent
from streams.calls.records import Face
from tests.builders.captured import SYSTEM, Desk, call, conversation, episodes, said, user

IDLE = 120.0
NAMED_IDLE = 600.0
TURNS = [("One.", "and?"), ("Two.", "so?"), ("Three.", "bye")]
SAID = ["One.", "Two.", "Three."]


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    desk = Desk(tmp_path)
    yield desk
    desk.close()


def steps_of(events: Any) -> list[StepEvent]:
    return [event for event in events if isinstance(event, StepEvent)]


def test_calls_without_ids_are_one_episode_by_what_they_say(desk: Desk) -> None:
    calls = conversation("hello", TURNS, principal="ann", agent="bot")
    assert desk.take(*calls, wait=IDLE - 1) == []
    desk.now += 1
    steps = steps_of(desk.due())
    assert episodes(steps) == {calls[0].receipt: SAID}
    assert [step.receipt for step in steps] == [each.receipt for each in calls]
    assert [(s.step, s.done, s.principal, s.agent, s.actor.adapter) for s in steps] == [
        (n, n == 2, "ann", "bot", "adapter-1") for n in range(3)
    ]
    assert [message.text for message in steps[1].observation] == ["so?"]


@pytest.mark.parametrize("label", ["episode", "conversation"])
def test_calls_with_an_id_are_one_episode_of_that_id(desk: Desk, label: str) -> None:
    calls = conversation("hello", TURNS, **{label: "case-7"})
    assert desk.take(*calls, wait=NAMED_IDLE - 1) == []
    desk.now += 1
    assert episodes(desk.due()) == {"case-7": SAID}


def test_a_task_that_one_call_names_is_that_of_its_episode_else_the_opening_is(desk: Desk) -> None:
    first, second, third = conversation("hello", TURNS)
    named = second.model_copy(
        update={"labels": second.labels.model_copy(update={"task": "t/1", "environment": "desk", "seed": 3})}
    )
    steps = steps_of(desk.take(first, named, third, wait=IDLE))
    assert {(s.task.environment, s.task.task_id, s.task.seed) for s in steps} == {("desk", "t/1", 3)}
    one = steps_of(desk.take(*conversation("hi", TURNS), wait=IDLE))
    two = steps_of(desk.take(*conversation("hi", [("Other.", "x")]), wait=IDLE))
    assert len({step.task.task_id for step in (*one, *two)}) == 1
    assert one[0].task.environment == "gateway"


def test_the_agent_may_trim_a_reply_and_rewrite_its_arguments(desk: Desk) -> None:
    tool = {"id": "c1", "type": "function", "function": {"name": "look", "arguments": '{"at": 1, "b":2}'}}
    again = tool | {"function": {"name": "look", "arguments": '{"b": 2, "at": 1}'}}
    opening = [SYSTEM, user("go")]
    first = call(opening, {"role": "assistant", "content": " Hm. ", "tool_calls": [tool], "reasoning_content": "why"})
    second = call(
        [
            *opening,
            {"role": "assistant", "content": "Hm.", "tool_calls": [again]},
            {"role": "tool", "tool_call_id": "c1", "content": "a room"},
        ],
        "Done.",
    )
    steps = steps_of(desk.take(first, second, wait=IDLE))
    assert [(step.episode_id, step.step) for step in steps] == [(first.receipt, 0), (first.receipt, 1)]
    assert steps[0].action.calls[0].function is not None
    assert steps[0].action.calls[0].function.arguments == '{"b": 2, "at": 1}'


def test_of_a_request_made_again_the_answer_that_was_gone_on_with_stays(desk: Desk) -> None:
    opening = [SYSTEM, user("hello")]
    first = call(opening, "One.")
    middle = [*opening, said("One."), user("and?")]
    lost, retried = call(middle, "Two!"), call(middle, "Two.")
    last = call([*middle, said("Two."), user("so?")], "Three.")
    found = episodes(desk.take(first, lost, retried, last, wait=IDLE))
    assert found == {first.receipt: SAID, f"{first.receipt}/{lost.receipt}": ["Two!"]}
    assert desk.tally.status.superseded == 1


@pytest.mark.parametrize("kept", [0, 1])
def test_a_regenerated_opening_gives_the_episode_to_the_answer_that_goes_on(desk: Desk, kept: int) -> None:
    opening = [SYSTEM, user("hello")]
    answers = [call(opening, text, episode="e") for text in ("A", "B")]
    on = call([*opening, said("AB"[kept]), user("and?")], "C", episode="e")
    found = episodes(desk.take(*answers, on, wait=NAMED_IDLE))
    assert found == {"e": ["AB"[kept], "C"], f"e/{answers[1 - kept].receipt}": ["AB"[1 - kept]]}


def test_of_two_answers_that_nothing_follows_the_later_is_the_episode(desk: Desk) -> None:
    answers = [call([SYSTEM, user("hello")], text, episode="e") for text in ("A", "B")]
    assert episodes(desk.take(*answers, wait=NAMED_IDLE)) == {"e": ["B"], f"e/{answers[0].receipt}": ["A"]}


def test_an_edited_message_is_another_episode_that_begins_with_the_history(desk: Desk) -> None:
    first, second = conversation("hello", TURNS)[:2]
    history = [SYSTEM, user("hello"), said("One."), user("edited")]
    edited = call(history, "Else.")
    on = call([*history, said("Else."), user("x")], "More.")
    found = episodes(desk.take(first, second, edited, on, wait=IDLE))
    assert found == {first.receipt: ["One.", "Else.", "More."], f"{first.receipt}/{second.receipt}": ["Two."]}


def test_a_compacted_or_rewritten_history_is_another_episode(desk: Desk) -> None:
    calls = conversation("hello", TURNS)[:2]
    compacted = call([SYSTEM, user("Summary: they said hello."), user("so?")], "Three.")
    rewritten = call([SYSTEM, user("hello"), said("Something else."), user("and?")], "Four.")
    found = episodes(desk.take(*calls, compacted, rewritten, wait=IDLE))
    assert found == {calls[0].receipt: SAID[:2], compacted.receipt: ["Three."], rewritten.receipt: ["Four."]}


def test_parallel_agents_of_one_episode_are_episodes_of_their_own(desk: Desk) -> None:
    planner = conversation("plan", TURNS, episode="e")
    sub: list[Any] = []
    for name in ("a", "b"):
        messages = [{"role": "system", "content": f"You are {name}."}, user("work")]
        sub += [call(messages, "w1", episode="e"), call([*messages, said("w1"), user("go")], "w2", episode="e")]
    mixed = [planner[0], sub[0], sub[2], planner[1], sub[3], sub[1], planner[2]]
    found = episodes(desk.take(*mixed, wait=NAMED_IDLE))
    assert found == {"e": SAID, f"e/{sub[0].receipt}": ["w1", "w2"], f"e/{sub[2].receipt}": ["w1", "w2"]}


def test_what_is_said_after_the_end_is_an_episode_whose_first_state_has_the_history(desk: Desk) -> None:
    first, second, third = conversation("hello", TURNS)
    assert episodes(desk.take(first, second, wait=IDLE)) == {first.receipt: SAID[:2]}
    steps = steps_of(desk.take(third, wait=IDLE))
    assert episodes(steps) == {third.receipt: SAID[2:]}
    assert [message.text for message in steps[0].messages][-3:] == ["and?", "Two.", "so?"]


def test_an_episode_named_again_after_its_end_gets_a_further_one(desk: Desk) -> None:
    first, second, third = conversation("hello", TURNS, episode="e")
    assert episodes(desk.take(first, second, wait=NAMED_IDLE)) == {"e": SAID[:2]}
    assert episodes(desk.take(third, wait=NAMED_IDLE)) == {f"e/{third.receipt}": SAID[2:]}


@pytest.mark.parametrize("principals", [("ann", "bob"), (None, None), ("ann", "ann")])
def test_equal_openings_with_equal_replies_that_go_on_differently_are_two(
    desk: Desk, principals: tuple[str | None, ...]
) -> None:
    chats = [
        conversation("hello", [("Hi.", f"I am {n}"), (f"To {n}.", "bye")], principal=principal)
        for n, principal in enumerate(principals)
    ]
    mixed = [each for pair in zip(*chats, strict=True) for each in pair]
    found = episodes(desk.take(*mixed, wait=IDLE))
    assert sorted(found.values()) == [["Hi.", "To 0."], ["Hi.", "To 1."]]


def test_principals_are_never_mixed_up_whoever_says_the_same(desk: Desk) -> None:
    ann, bob = (conversation("hello", TURNS, principal=name) for name in ("ann", "bob"))
    steps = steps_of(desk.take(ann[0], bob[0], bob[1], ann[1], bob[2], ann[2], wait=IDLE))
    assert {(step.episode_id, step.principal) for step in steps} == {(ann[0].receipt, "ann"), (bob[0].receipt, "bob")}
    claimed = ann[0].model_copy(update={"receipt": "x", "authenticated": True})
    on = conversation("hello", TURNS, principal="ann")[1]
    assert len(episodes(desk.take(claimed, on, wait=IDLE))) == 2  # a claim is not the one who has the token


def test_equal_chats_with_different_labels_go_to_their_own(desk: Desk) -> None:
    chats = [conversation("hello", [("Hi.", f"I am {n}"), (f"To {n}.", "")], task=f"t{n}") for n in range(2)]
    steps = steps_of(desk.take(chats[0][0], chats[1][0], chats[0][1], chats[1][1], wait=IDLE))
    found = {step.episode_id: step.task.task_id for step in steps}
    assert found == {chats[0][0].receipt: "t0", chats[1][0].receipt: "t1"}
    assert episodes(steps) == {chats[n][0].receipt: ["Hi.", f"To {n}."] for n in range(2)}


def test_calls_in_any_order_are_the_same_episode(desk: Desk) -> None:
    first, second, third = conversation("hello", TURNS)
    (found,) = episodes(desk.take(third, first, second, wait=IDLE)).values()
    assert found == SAID


def test_of_several_choices_the_one_gone_on_with_is_the_episode(desk: Desk) -> None:
    opening = [SYSTEM, user("hello")]
    several = call(opening, "A", "B")
    on = call([*opening, said("B"), user("and?")], "C")
    found = episodes(desk.take(several, on, wait=IDLE))
    assert sorted(found.values()) == [["A"], ["B", "C"]]


def test_a_call_that_failed_breaks_nothing_and_one_cut_off_flags_what_is_left(desk: Desk) -> None:
    first, second, third = conversation("hello", TURNS, episode="e")
    failed = second.model_copy(update={"receipt": "f", "status": 503, "reply": '{"error": {"message": "busy"}}'})
    cut = second.model_copy(update={"receipt": "c", "complete": False, "reply": '{"choices": [{"mess'})
    steps = steps_of(desk.take(first, failed, cut, second, third, wait=NAMED_IDLE))
    assert [step.flag for step in steps] == [None] * 3  # it was made again
    assert desk.tally.status.absences == {"failed": 1, "incomplete": 1}
    lost = [each.model_copy(update={"receipt": f"l{n}"}) for n, each in enumerate((first, cut, third))]
    other = [each.model_copy(update={"labels": each.labels.model_copy(update={"episode": "x"})}) for each in lost]
    steps = steps_of(desk.take(*other, wait=NAMED_IDLE))
    assert {step.flag for step in steps} == {"content of a call of its episode is missing: incomplete"}


def test_a_response_that_a_request_names_is_its_history_for_a_day(desk: Desk) -> None:
    def respond(number: int, text: str, **request: Any) -> Any:
        item = {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": f"r{number}"}]}
        reply = {"id": f"resp_{number}", "object": "response", "status": "completed", "output": [item]}
        return call([], face=Face.RESPONSES, request=json.dumps({"input": text, **request}), reply=json.dumps(reply))

    first, second = respond(1, "hello"), respond(2, "and?", previous_response_id="resp_1")
    assert episodes(desk.take(first, second, wait=IDLE)) == {first.receipt: ["r1", "r2"]}
    late = respond(3, "so?", previous_response_id="resp_2")
    (step,) = steps_of(desk.take(late, wait=IDLE))
    assert [message.text for message in step.messages] == ["hello", "r1", "and?", "r2", "so?"]
    desk.state.prune(desk.now + 86_400)
    forgotten = respond(4, "x", previous_response_id="resp_3")
    assert desk.take(forgotten, wait=IDLE) == []


def test_longest_ids_and_hostile_calls_stop_nothing(desk: Desk) -> None:
    calls = [*conversation("hello", TURNS[:1], episode="e" * 512), *conversation("other", TURNS[:1], episode="e" * 512)]
    hostile = [
        call([], request=request, reply=reply)
        for request in ("", "[]", "null", '{"messages": 3}', "[" * 5000, '{"messages": [{"role": "user"}]}', "\ud83d")
        for reply in ("", "{}", "data: 1\n\n", '{"choices": [{}]}')
        if request.isascii()
    ]
    found = episodes(desk.take(*calls, *hostile, wait=NAMED_IDLE))
    assert len(found) == 2
    assert "e" * 512 in found
