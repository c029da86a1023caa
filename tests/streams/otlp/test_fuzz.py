"""Telemetry is anybody's: nothing that the intake takes may stop the assembler."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ratchet_client.events import EVENT
from streams.assembly.assembly import assemble
from streams.assembly.telemetry import conversation_of
from streams.otlp.records import ANY_RECORD, AnyRecord, LogRecord, Span, SpanEvent

NAMES = [
    *("gen_ai.operation.name", "gen_ai.input.messages", "gen_ai.output.messages", "gen_ai.system_instructions"),
    *("gen_ai.conversation.id", "gen_ai.agent.name", "gen_ai.response.model", "gen_ai.request.model", "user.id"),
    *("gen_ai.prompt.0.role", "gen_ai.prompt.0.content", "gen_ai.prompt.1.role", "gen_ai.prompt.0.tool_calls.0.name"),
    *("gen_ai.completion.0.content", "gen_ai.completion.0.role", "gen_ai.completion.0.tool_calls.0.arguments"),
    *("openinference.span.kind", "llm.input_messages.0.message.role", "llm.input_messages.0.message.content"),
    *("llm.output_messages.0.message.content", "llm.input_messages.0.message.contents.0.message_content.type"),
    *("llm.input_messages.0.message.tool_calls.0.tool_call.function.arguments", "llm.model_name", "session.id"),
    *("ratchet.task.id", "ratchet.task.seed", "ratchet.task.environment", "gen_ai.evaluation.score.value"),
    *("gen_ai.evaluation.score.label", "gen_ai.evaluation.name", "gen_ai.evaluation.passed", "content", "message"),
    *("tool_calls", "gen_ai.prompt", "gen_ai.completion", "gen_ai.response.finish_reasons", "input.value"),
    *("ai.operationId", "ai.prompt", "ai.prompt.messages", "ai.response.text", "ai.response.toolCalls"),
    *("ai.response.reasoning", "gen_ai.completion.0.reasoning", "llm.output_messages.0.message.reasoning_content"),
    *("gen_ai.tool.definitions", "llm.tools.0.tool.json_schema", "llm.request.functions.0.name"),
    *("llm.request.functions.0.parameters", "ai.prompt.tools", "model_request_parameters"),
    *("gen_ai.prompt.0.tool_call_id", "gen_ai.prompt.0.tool_calls.0.id", "gen_ai.completion.0.tool_calls.0.name"),
    *("llm.input_messages.0.message.tool_calls.3.tool_call.function.name", "llm.output_messages.0.message.content"),
    *("llm.input_messages.0.message.tool_call_id", "llm.input_messages.2.message.role"),
    *("llm.invocation_parameters", "llm.output_messages.0.message.contents.0.message_content.type"),
    *("llm.output_messages.0.message.contents.0.message_content.input", "langfuse.observation.type"),
]
EVENTS = [
    *("gen_ai.user.message", "gen_ai.assistant.message", "gen_ai.tool.message", "gen_ai.choice"),
    *("gen_ai.evaluation.result", "gen_ai.client.inference.operation.details"),
    *("gen_ai.content.prompt", "gen_ai.content.completion"),
]
TELLING = st.sampled_from(
    [
        *(
            "chat",
            "LLM",
            "user",
            "assistant",
            "tool",
            "text",
            "pass",
            "9" * 5000,
            "[" * 300 + "]" * 300,
            "[" + "9" * 5000 + "]",
        ),
        '[{"role":"user","parts":[{"type":"text","content":"hi"}]}]',
        '[{"role":"assistant","parts":[{"type":"tool_call","name":1,"arguments":{"a":[null]}}]}]',
        '[{"role":"user","parts":[{"type":"tool_call_response","response":' + "9" * 5000 + "}]}]",
        '[{"role":"user","content":"\\ud800"}]',
        '[{"role":"user","content":"\\u0000"}]',
        *("acompletion", "ai.generateText.doGenerate", "tool_calls", "__REDACTED__", "thinking", "tool_use"),
        '[{"type":"tool_result","content":[{"type":"tool_result","content":[{"type":"image"}]}]}]',
        '[{"role":"assistant","content":[{"type":"thinking","thinking":[{"text":7}]},{"type":"tool_use","input":[]}]}]',
        '[{"role":"user","content":' + '[{"type":"tool_result","content":' * 90 + "1" + "}]" * 90 + "}]",
        '[{"role":"assistant","content":"x","reasoning":' + '{"content":' * 190 + "1" + "}" * 190 + "}]",
        '[{"type":"function","name":"look","parameters":' + '{"a":' * 190 + "1" + "}" * 191 + "]",
        '[{"name":["look"],"function":{"name":{}}}]',
        '{"function_tools":[{"name":[1],"strict":true},{"name":"look","strict":false},7]}',
        '[{"role":"assistant","tool_calls":[{"id":7,"function":{"name":"look","arguments":{}}}]},'
        '{"role":"tool","tool_call_id":["1"],"content":"x","name":{}},{"type":"web_search_call","action":{}},'
        '{"type":"computer_call","call_id":"c"},{"type":"computer_call_output","call_id":"c","output":{"text":1}}]',
        '[{"role":"user","content":[{"type":"image","source":{"type":"base64","data":"eA=="}},{"type":"blob"},'
        '{"type":"odd","text":[1],"deep":' + '{"a":' * 150 + "1" + "}" * 150 + "}]}]",
        '[{"function_response":{"name":"x","response":{"result":[]}}},{"functionCall":{"args":3}}]',
    ]
)
KEYS = st.sampled_from(
    [
        *("role", "parts", "content", "type", "tool_calls", "function", "name", "arguments", "message", "text"),
        *("id", "call_id", "tool_call_id", "strict", "parameters", "refusal", "source", "data", "url", "modality"),
        *("reasoning", "reasoning_content", "input", "output", "response", "toolName", "function_call", "summary"),
    ]
)
SCALARS = (
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False)
)
VALUES = st.recursive(
    TELLING | SCALARS | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=8,
)
ATTRIBUTES = st.dictionaries(
    st.sampled_from(NAMES), VALUES | VALUES.map(lambda value: json.dumps(value)), max_size=12
).map(lambda found: {"gen_ai.operation.name": "chat", **found})
IDS = st.sampled_from(["", "01" * 8, "02" * 8, "03" * 8])
TIMES = st.integers(0, 2**64 - 1)
SPANS = st.builds(
    Span,
    trace_id=st.just("0a" * 16),
    span_id=IDS.filter(bool),
    parent_id=IDS,
    name=st.text(max_size=3),
    start_ns=TIMES,
    end_ns=TIMES,
    dropped_attributes=st.integers(0, 1),
    failed=st.booleans(),
    attributes=ATTRIBUTES,
    resource=st.just({}),
    events=st.lists(
        st.builds(SpanEvent, name=st.sampled_from(EVENTS), time_ns=TIMES, attributes=ATTRIBUTES), max_size=2
    ).map(tuple),
)
LOGS = st.builds(
    LogRecord,
    trace_id=st.just("0a" * 16),
    span_id=IDS,
    name=st.sampled_from(EVENTS),
    time_ns=TIMES,
    attributes=ATTRIBUTES,
    resource=st.just({}),
    body=VALUES,
)


@pytest.mark.slow
@settings(max_examples=100, deadline=None)
@given(st.lists(SPANS | LOGS, max_size=6))
def test_arbitrary_telemetry_does_not_stop_the_assembler(records: list[Any]) -> None:
    kept: list[AnyRecord] = [ANY_RECORD.validate_json(record.to_json()) for record in records]
    for event in assemble("run", kept, {}).events:
        assert EVENT.validate_json(event.to_json()) == event
    for record in kept:
        assert conversation_of(record) != ""
