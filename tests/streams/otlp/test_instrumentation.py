"""OpenInference's own instrumentation of OpenAI's client: what it hides, what limits cut off, and the Responses API."""

from typing import Any

import httpx
import openai
import pytest
from openinference.instrumentation import TraceConfig
from openinference.instrumentation.openai import OpenAIInstrumentor
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk.trace import SpanLimits, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from ratchet_client.events import StepEvent
from ratchet_client.messages import assistant, call, tool_result
from streams.assembly.assembly import Assembly, assemble
from streams.otlp.wire import Encoding, Signal, read

CHAT = [{"role": "system", "content": "You play a game with long rules."}, {"role": "user", "content": "Go."}]
CALL = {"type": "function_call", "call_id": "c", "name": "look", "arguments": '{"room":"kitchen"}'}
THOUGHT = {"type": "reasoning", "id": "r", "summary": [{"type": "summary_text", "text": "Hm."}]}
SAID = {
    "type": "message",
    "role": "assistant",
    "content": [{"type": "output_text", "text": "I look.", "annotations": []}],
}
COMPLETION = {
    **{"id": "1", "object": "chat.completion", "created": 1, "model": "m"},
    "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "look"}}],
}
RESPONSE = {
    **{"id": "r", "object": "response", "created_at": 1, "model": "m", "status": "completed", "tools": []},
    **{"parallel_tool_calls": True, "tool_choice": "auto"},
    "output": [THOUGHT, SAID | {"id": "m", "status": "completed"}, CALL | {"id": "f", "status": "completed"}],
}


def agent(limits: SpanLimits | None = None, *, responses: bool = False, **hide: Any) -> Assembly:
    """What comes of the spans of an agent whose model answers with constants."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider(span_limits=limits or SpanLimits())
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    instrumentor = OpenAIInstrumentor()
    instrumentor.instrument(tracer_provider=provider, config=TraceConfig(**hide))
    model = httpx.MockTransport(lambda _: httpx.Response(200, json=RESPONSE if responses else COMPLETION))
    http: Any = httpx.Client(transport=model)
    client: Any = openai.OpenAI(api_key="none", base_url="http://model", http_client=http)
    try:
        with provider.get_tracer("agent").start_as_current_span("run"):
            if responses:
                asked = [{"role": "user", "content": "Go."}]
                client.responses.create(model="m", input=asked)
                answer = {"type": "function_call_output", "call_id": "c", "output": "A fridge."}
                client.responses.create(model="m", input=[*asked, THOUGHT, SAID, CALL, answer])
            else:
                client.chat.completions.create(model="m", messages=CHAT)
    finally:
        instrumentor.uninstrument()
    body = encode_spans(exporter.get_finished_spans()).SerializeToString()
    return assemble("run", read(Signal.TRACES, Encoding.PROTOBUF, body).records, {})


@pytest.mark.parametrize(
    ("hidden", "reason"),
    [
        ("hide_inputs", "masked"),
        ("hide_outputs", "masked"),
        ("hide_input_text", "masked"),
        ("hide_output_text", "masked"),
        ("hide_input_messages", "incomplete"),
        ("hide_output_messages", "incomplete"),
    ],
)
def test_what_it_hides_is_no_step(hidden: str, reason: str) -> None:
    hide: dict[str, Any] = {hidden: True}
    assembly = agent(**hide)
    assert (assembly.events, dict(assembly.absences), dict(assembly.unrecognised)) == ((), {reason: 1}, {})


@pytest.mark.parametrize(
    ("limits", "steps"),
    [
        (SpanLimits(), 1),
        (SpanLimits(max_span_attributes=10), 1),
        (SpanLimits(max_span_attributes=6), 0),
        (SpanLimits(max_span_attributes=3), 0),
        (SpanLimits(max_span_attribute_length=100), 1),
        (SpanLimits(max_span_attribute_length=20), 0),
    ],
)
def test_what_limits_cut_off_is_no_step_and_what_is_whole_is_one(limits: SpanLimits, steps: int) -> None:
    assembly = agent(limits)
    assert (len(assembly.events), dict(assembly.absences)) == (steps, {} if steps else {"cut off by a limit": 1})


def test_the_items_of_the_responses_api_are_one_append_only_conversation() -> None:
    steps = [event for event in agent(responses=True).events if isinstance(event, StepEvent)]
    said = assistant("I look.", call("look", '{"room":"kitchen"}', "c"), reasoning="Hm.")
    assert [(step.step, step.action, step.observation) for step in steps] == [
        (0, said, (tool_result("A fridge.", "c"),)),
        (1, said, ()),
    ]
