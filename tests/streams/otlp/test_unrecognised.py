"""A model call is read whatever its library calls the operation; what no dialect reads is counted and named."""

import json
from collections.abc import Mapping
from typing import Any

import httpx
import pytest

from ratchet_client.events import StepEvent
from ratchet_client.messages import Message, assistant, call, tool_result, user
from streams.assembly.assembler import Assembler
from streams.assembly.assembly import assemble
from streams.assembly.server import build_status_app
from streams.assembly.settings import AssemblySettings
from streams.assembly.state import AssemblyState
from streams.assembly.status import AssemblyStatus
from streams.kafka.settings import KafkaSettings
from streams.otlp.dialects import Chat, dialect_of, read_chat
from streams.otlp.records import Attributes, Span
from streams.runtime.tally import OTHERS, Tally
from tests.builders.spans import conventions, game, openinference, root, span, states

LOOK = call("look", '{"room":"kitchen"}', "1")


def vercel(seen: list[Any], *, operation: str = "ai.generateText.doGenerate", **response: Any) -> Attributes:
    told = {f"ai.response.{name}": v if isinstance(v, str) else json.dumps(v) for name, v in response.items()}
    named: Attributes = {"ai.operationId": operation, "operation.name": operation, "ai.model.id": "base"}
    return named | {"ai.prompt.messages": json.dumps(seen), "gen_ai.request.model": "base", **told}


def unread(*spans: Span) -> Mapping[str, int]:
    return assemble("run", spans, {}).unrecognised


@pytest.mark.parametrize("operation", ["acompletion", "completion", "responses", "messages.create", "text_generation"])
def test_an_operation_of_any_name_with_messages_is_a_model_call(operation: str) -> None:
    attributes = conventions(*states()[0]) | {"gen_ai.operation.name": operation}
    (step,) = assemble("run", [span(1, attributes), root()], {}).events
    assert isinstance(step, StepEvent)
    assert step.action.content == "open fridge"


@pytest.mark.parametrize("operation", ["embeddings", "execute_tool", "invoke_agent", "create_agent", ["chat"], 7, None])
def test_operations_that_are_no_chats_are_none_with_messages_too(operation: Any) -> None:
    attributes = conventions(*states()[0]) | {"gen_ai.operation.name": operation}
    assert dialect_of(span(1, attributes)) is None


def test_a_wrapper_with_messages_gives_way_to_the_calls_within_it() -> None:
    wrapper = span(50, conventions(*states()[0]) | {"gen_ai.operation.name": "agent_run"}, parent_id="")
    calls = [span(n + 1, conventions(*state), parent_id=wrapper.span_id) for n, state in enumerate(states())]
    steps = assemble("run", [wrapper, *calls], {}).events
    assert [step.action.content for step in steps if isinstance(step, StepEvent)] == [
        "open fridge",
        "take apple",
        "eat apple",
    ]


@pytest.mark.parametrize("operation", ["ai.generateText.doGenerate", "ai.streamText.doStream"])
@pytest.mark.parametrize("release", [4, 5])
def test_the_vercel_ai_sdk_is_read(operation: str, release: int) -> None:
    arguments, result = (
        ("args", {"result": "A fridge."})
        if release == 4
        else ("input", {"output": {"type": "text", "value": "A fridge."}})
    )
    part = {"type": "tool-call", "toolCallId": "1", "toolName": "look", arguments: {"room": "kitchen"}}
    seen: list[Any] = [
        {"role": "system", "content": "You play."},
        {"role": "user", "content": [{"type": "text", "text": "Go."}]},
        {"role": "assistant", "content": [{"type": "reasoning", "text": "Hm."}, part]},
        {"role": "tool", "content": [{"type": "tool-result", "toolCallId": "1", "toolName": "look", **result}]},
    ]
    said = [{"toolCallId": "1", "toolName": "look", arguments: '{"room": "kitchen"}'}]
    attributes = vercel(seen, operation=operation, text="", toolCalls=said, reasoning="Where?", model="base-1")
    assert read_chat(span(1, attributes), ()) == Chat(
        (
            Message(role="system", content="You play."),
            user("Go."),
            assistant(None, LOOK, reasoning="Hm."),
            tool_result("A fridge.", "1"),
        ),
        assistant(None, call("look", '{"room": "kitchen"}', "1"), reasoning="Where?"),
        "base-1",
    )


def test_steps_of_the_vercel_ai_sdk_are_one_episode_and_their_wrapper_is_none() -> None:
    seen: list[Any] = [{"role": "user", "content": [{"type": "text", "text": "Go."}]}]
    call = {"type": "tool-call", "toolCallId": "1", "toolName": "look", "input": {"room": "kitchen"}}
    result = {"type": "tool-result", "toolCallId": "1", "toolName": "look", "output": {"type": "json", "value": [1]}}
    after = [*seen, {"role": "assistant", "content": [call]}, {"role": "tool", "content": [result]}]
    wrapper = span(50, vercel(seen, operation="ai.generateText", text="Done.") | {"ai.prompt": '{"prompt":"Go."}'})
    spans = [
        span(1, vercel(seen, toolCalls=[{**call, "input": '{"room":"kitchen"}'}]), parent_id=wrapper.span_id),
        span(2, {"ai.operationId": "ai.toolCall", "ai.toolCall.name": "look"}, parent_id=wrapper.span_id),
        span(3, vercel(after, text="Done."), parent_id=wrapper.span_id),
    ]
    assembly = assemble("run", [wrapper, *spans, root()], {})
    steps = [event for event in assembly.events if isinstance(event, StepEvent)]
    assert [(step.episode_id, step.action, step.observation) for step in steps] == [
        ("run", assistant(None, LOOK), (tool_result("[1]", "1"),)),
        ("run", assistant("Done."), ()),
    ]
    assert (assembly.without_content, dict(assembly.unrecognised)) == (0, {})


@pytest.mark.parametrize(
    "prompt",
    [
        {"system": "You play.", "prompt": "Go."},
        {"system": "You play.", "messages": [{"role": "user", "content": "Go."}]},
    ],
)
def test_the_prompt_of_the_vercel_ai_sdk_may_be_what_the_caller_gave(prompt: Any) -> None:
    attributes = vercel([], text="look") | {"ai.prompt": json.dumps(prompt)}
    del attributes["ai.prompt.messages"]
    chat = read_chat(span(1, attributes), ())
    assert chat is not None
    assert [message.content for message in chat.messages] == ["You play.", "Go."]


def test_the_vercel_ai_sdk_without_content_is_counted() -> None:
    seen: list[Any] = [{"role": "user", "content": [{"type": "text", "text": "Go."}]}]
    bare: Attributes = {"ai.operationId": "ai.generateText.doGenerate"}
    for attributes in (bare, vercel(seen), vercel(seen, text="__REDACTED__"), vercel(seen, toolCalls="[{")):
        assembly = assemble("run", [span(1, attributes)], {})
        assert (assembly.events, assembly.without_content, dict(assembly.unrecognised)) == ((), 1, {})


def test_an_empty_copy_of_the_messages_in_another_dialect_does_not_hide_them() -> None:
    seen: list[Any] = [{"role": "user", "content": [{"type": "text", "text": "Go."}]}]
    copy = {"gen_ai.operation.name": "chat", "gen_ai.input.messages": '[{"role":"user","parts":[]}]'}
    assert len(assemble("run", [span(1, vercel(seen, text="look") | copy)], {}).events) == 1


@pytest.mark.parametrize(
    ("attributes", "scope", "name"),
    [
        (
            {"langfuse.observation.type": "generation", "langfuse.observation.input": "x"},
            "langfuse 3",
            "langfuse: generation",
        ),
        ({"langsmith.span.kind": "llm", "gen_ai.prompt": "x"}, "langsmith", "langsmith: llm"),
        ({"gen_ai.operation.name": "responses", "gen_ai.request.model": "m"}, "a.b 1.2", "a.b: responses"),
        (
            {"ai.operationId": "ai.generateObject.doGenerate", "ai.prompt.messages": "[]"},
            "ai",
            "ai: ai.generateObject.doGenerate",
        ),
        ({"llm.request.type": "completion", "gen_ai.prompt": "x"}, "", "(no scope): completion"),
        ({"traceloop.span.kind": "generation"}, "t", "t: generation"),
        ({"gen_ai.operation.name": "text_completion", "gen_ai.prompt": "x"}, "s", "s: text_completion"),
        ({"gen_ai.request.model": "m"}, "s", "s: chat"),
        ({"gen_ai.operation.name": ["chat"], "gen_ai.usage.input_tokens": 3}, "s", "s: ['chat']"),
        ({"llm.model_name": "m", "input.value": "x"}, "s", "s: chat"),
    ],
)
def test_a_call_that_no_dialect_reads_is_named(attributes: Attributes, scope: str, name: str) -> None:
    assert unread(span(1, attributes, scope=scope), root({"gen_ai.agent.name": "player"})) == {name: 1}


@pytest.mark.parametrize(
    "attributes",
    [
        {"gen_ai.operation.name": "embeddings", "gen_ai.request.model": "m"},
        {"gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": "look"},
        {"openinference.span.kind": "CHAIN", "input.value": "x"},
        {"traceloop.span.kind": "workflow", "traceloop.entity.input": "x"},
        {"ai.operationId": "ai.toolCall", "ai.toolCall.name": "look"},
        {"gen_ai.agent.name": "player", "gen_ai.conversation.id": "1", "langfuse.session.id": "2"},
        {"traceloop.association.properties.session_id": "1", "http.request.method": "GET"},
        {"user.id": "ann"},
        {},
    ],
)
def test_what_is_no_model_call_is_not_named(attributes: Attributes) -> None:
    assert unread(span(1, attributes)) == {}


def test_spans_around_and_within_a_call_that_is_read_are_not_named() -> None:
    outer = span(50, {"langfuse.observation.type": "generation"}, parent_id="")
    call = span(1, openinference(*states()[0]), parent_id=outer.span_id)
    inner = span(2, {"gen_ai.request.model": "m"}, parent_id=call.span_id)
    assert unread(outer, call, inner) == {}
    assert unread(*game(), span(7, {"gen_ai.request.model": "m"}, scope="s")) == {"s: chat": 1}


async def test_the_status_and_the_metrics_name_them(tmp_path: Any) -> None:
    settings, tally = AssemblySettings(path=tmp_path / "assembly.sqlite", idle_s=1), Tally(AssemblyStatus())
    state = AssemblyState.open(settings, 0)
    assembler = Assembler(state, KafkaSettings(), settings, {}, tally, clock=lambda: 100)
    masked = span(2, conventions([("user", "[REDACTED]")], "look"))
    state.add([span(1, {"langfuse.observation.type": "generation"}, scope="lf"), masked], 0)
    for unit in state.due(100):
        assembler.assemble(unit)
    app = build_status_app(tally, state)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1") as client:
        status = AssemblyStatus.model_validate_json((await client.get("/status")).content)
        metrics = (await client.get("/metrics")).text
    state.close()
    assert (status.without_content, status.absences) == (1, {"masked": 1})
    assert status.unrecognised == {"lf: generation": 1}
    assert 'ratchet_assembly_unrecognised_spans_total{name="lf: generation"} 1.0' in metrics
    assert 'ratchet_assembly_calls_without_content_total{reason="masked"} 1.0' in metrics


def test_names_are_added_up_and_their_number_has_a_limit() -> None:
    tally = Tally(AssemblyStatus())
    for number in range(150):
        tally.add(AssemblyStatus(unrecognised={f"scope {number}: chat": 1, "often": 2}))
    assert tally.status.unrecognised["often"] == 300
    assert len(tally.status.unrecognised) == 101
    assert tally.status.unrecognised[OTHERS] == 51
