"""A conversation with tools gives the same events in every dialect, and one that can be trusted and branched."""

import json
from typing import Any

import pytest

from ratchet_client.events import EVENT, StepEvent
from ratchet_client.messages import Message, assistant, tool_result
from streams.assembly.assembly import Assembly, assemble
from streams.branch_events import tools_at
from streams.otlp.records import Attributes, LogRecord, Span, SpanEvent
from streams.trust.rules import branch_request
from tests.builders.spans import TRACE, root, span, stored
from tests.builders.tool_chats import CHAT, DIALECTS, REPLIES, TOOLS, Dialect, conventions, openai, openinference

CALL_IDS = ("a", "b", "c")


def calls_of(dialect: Dialect) -> list[Span]:
    return [span(n + 1, dialect(CHAT[:place], CHAT[place])) for n, place in enumerate(REPLIES)]


def steps_of(assembly: Assembly) -> list[StepEvent]:
    return [event for event in assembly.events if isinstance(event, StepEvent)]


def assert_is_the_conversation(steps: list[StepEvent], tools: Any = TOOLS) -> None:
    """The steps are those of `CHAT`, but for the ids of its calls, which agree, and of one episode."""
    assert [(step.episode_id, step.step, step.flag) for step in steps] == [("run", n, None) for n in range(4)]
    ids = [call.id for message in (*steps[-1].messages, steps[-1].action) for call in message.calls]
    assert len(set(ids)) == 3
    renamed = dict(zip(CALL_IDS, ids, strict=True))
    chat = [with_ids(message, renamed) for message in CHAT]
    for number, (step, place) in enumerate(zip(steps, REPLIES, strict=True)):
        after = REPLIES[number + 1] if number + 1 < len(REPLIES) else place + 1
        assert step.messages == tuple(chat[:place])
        assert step.action == chat[place]
        assert step.observation == tuple(chat[place + 1 : after])
        assert step.tools == tools
        assert EVENT.validate_json(step.to_json()) == step
    request = branch_request("run", stored(steps), "trusted")
    assert request is not None
    assert request.state(3) == steps[3].messages
    assert tools_at(request.steps, 3) == tools


def with_ids(message: Message, ids: dict[str, str]) -> Message:
    calls = tuple(call.model_copy(update={"id": ids[call.id]}) for call in message.calls)
    answered = ids[message.tool_call_id] if message.tool_call_id else None
    return message.model_copy(update={"tool_calls": calls or None, "tool_call_id": answered})


@pytest.mark.parametrize("dialect", DIALECTS, ids=lambda dialect: dialect.__name__)
def test_a_conversation_with_tools_is_the_same_in_every_dialect(dialect: Dialect) -> None:
    assert_is_the_conversation(steps_of(assemble("run", [*calls_of(dialect), root()], {})))


def test_the_events_of_two_dialects_differ_in_nothing_but_ids() -> None:
    seen = [steps_of(assemble("run", [*calls_of(dialect), root()], {})) for dialect in DIALECTS]
    tasks = {step.task.task_id for steps in seen for step in steps}
    ids = {step.event_id for steps in seen for step in steps}
    assert (len(tasks), len(ids)) == (1, 4)


def events_of(place: int, *, details: bool) -> list[tuple[str, dict[str, Any]]]:
    """The content of a call in log records, as the conventions had it before attributes, or in one of them."""
    if details:
        told: dict[str, Any] = conventions(CHAT[:place], CHAT[place])
        return [("gen_ai.client.inference.operation.details", told)]
    found = []
    for message in CHAT[:place]:
        body = openai(message)
        identity = {"id": body["tool_call_id"]} if message.role == "tool" else {}
        found.append((f"gen_ai.{message.role}.message", body | identity))
    said = openai(CHAT[place])
    choice = {"index": 0, "message": {"content": said.get("content")}, "tool_calls": said.get("tool_calls")}
    return [*found, ("gen_ai.choice", choice)]


@pytest.mark.parametrize("details", [False, True])
@pytest.mark.parametrize("as_logs", [False, True])
def test_a_conversation_in_events_is_the_same(as_logs: bool, details: bool) -> None:
    bare: Attributes = {"gen_ai.operation.name": "chat"}
    records: list[Any] = [root()]
    for number, place in enumerate(REPLIES):
        told = events_of(place, details=details)
        if as_logs:
            records.append(span(number + 1, bare))
            records += [
                LogRecord(trace_id=TRACE, span_id=f"{number + 1:016x}", name=name, time_ns=n, body=body)
                for n, (name, body) in enumerate(told)
            ]
        else:
            flat = [
                (name, {key: json.dumps(v) if isinstance(v, dict | list) else v for key, v in body.items()})
                for name, body in told
            ]
            events = tuple(SpanEvent(name=name, time_ns=n, attributes=body) for n, (name, body) in enumerate(flat))
            records.append(span(number + 1, bare, events=events))
    assert_is_the_conversation(steps_of(assemble("run", records, {})), TOOLS if details else ())


def test_what_follows_the_last_call_is_not_known_until_another_call_saw_it() -> None:
    first, *_ = calls_of(conventions)
    (step,) = steps_of(assemble("run", [first], {}))
    assert (step.observation, step.done) == ((), True)


def test_a_reply_and_its_place_in_the_history_may_be_spelled_in_two_ways() -> None:
    """Vercel's SDK has the model's text in one place and an object in the other; some lose ids in one of them."""
    first, *rest = calls_of(openinference)
    spelled = {
        key: str(value).replace('":"', '" : "') if key.endswith("arguments") else value
        for key, value in first.attributes.items()
        if "output_messages" not in key or not key.endswith("tool_call.id")
    }
    told = [span(1, spelled), *rest, root()]
    assert_is_the_conversation(steps_of(assemble("run", told, {})))


def test_a_call_takes_the_id_that_only_its_answer_has() -> None:
    told = [
        span(n + 1, {key: value for key, value in call.attributes.items() if not key.endswith("tool_call.id")})
        for n, call in enumerate(calls_of(openinference))
    ]
    steps = steps_of(assemble("run", told, {}))
    assert [call.id for step in steps for call in step.action.calls] == ["a", "b", "c"]
    assert_is_the_conversation(steps)


def test_answers_without_ids_belong_to_calls_in_order_or_by_name() -> None:
    def parts(*names: str) -> list[Any]:
        calls: list[Any] = [{"function_call": {"name": name, "args": {}}} for name in ("look", "open")]
        answers = [{"function_response": {"name": name, "response": {"result": name}}} for name in names]
        return [
            {"role": "user", "parts": [{"text": "Go."}]},
            {"role": "model", "parts": calls},
            {"role": "user", "parts": answers},
        ]

    for names in (("open", "look"), ("look", "open")):
        told = {"gen_ai.operation.name": "chat", "gen_ai.input.messages": json.dumps(parts(*names))}
        said = {"gen_ai.output.messages": '[{"role":"model","parts":[{"text":"Done."}]}]'}
        (step,) = steps_of(assemble("run", [span(1, {**told, **said})], {}))
        numbers = {"look": "call_0", "open": "call_1"}
        assert step.messages[2:] == tuple(tool_result(name, numbers[name]) for name in names)


def test_a_developer_stays_one_and_the_task_is_that_of_the_system() -> None:
    found = []
    for role in ("developer", "system"):
        opening = Message.model_validate({"role": role, "content": "You plan."})
        (step,) = steps_of(assemble("run", [span(1, conventions((opening, CHAT[1]), assistant("Go.")))], {}))
        assert step.messages[0] == opening
        found.append(step.task.task_id)
    assert found[0] == found[1]
