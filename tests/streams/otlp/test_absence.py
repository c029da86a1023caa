"""Content that was hidden or cut off gives no step, and what is left of its trace is not learned from."""

import json
from typing import Any

import pytest
from pydantic import JsonValue

from ratchet_client.events import StepEvent
from streams.assembly.assembly import Assembly, assemble
from streams.otlp.records import Attributes, Span, SpanEvent
from tests.builders.spans import conventions, game, openinference, openllmetry, root, span, states

MASKS = ["__REDACTED__", "[REDACTED]", "<REDACTED>", "[redacted by policy 7]", " ***REDACTED***\n", "[Filtered]"]
MASKS += ["REDACTED", "{{REDACTED}}", "<<redacted>>", "[PII REDACTED]", "[content removed]", "****", "<REDACTED:EMAIL>"]
MASKS += ["<elided>", "[obfuscated]", "(anonymised)", "{{anonymized}}", "__SUPPRESSED__", "[Excluded]", "<stripped>"]
MASKS += [
    "[removed]",
    "(removed by policy)",
    "[not captured]",
    "<NOT_CAPTURED>",
    "[prompt not captured]",
    "<redacted/>",
]
MASKS += ["<elided />", "Redacted", "███", "██████ ███", "••••••••", "[content elided: 4096 bytes]"]
HIDDEN: JsonValue = {"type": "text"}


def assembled(attributes: Attributes, **fields: Any) -> Assembly:
    return assemble("run", [span(1, attributes, **fields), root()], {})


def without_content(attributes: Attributes, **fields: Any) -> dict[str, int]:
    """The reasons, of which one is expected, and no step."""
    found = assembled(attributes, **fields)
    assert (found.events, found.without_content) == ((), 1)
    return dict(found.absences)


def two_steps(attributes: Attributes, **fields: Any) -> list[StepEvent]:
    found = assemble("run", [span(1, conventions(*states()[0])), span(2, attributes, **fields), root()], {})
    return [event for event in found.events if isinstance(event, StepEvent)]


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("dialect", [conventions, openllmetry, openinference])
def test_a_mask_in_the_place_of_a_text_is_no_text(dialect: Any, mask: str) -> None:
    seen, said = states()[1]
    masked = [(role, mask) for role, _ in seen]
    for attributes in (dialect(seen, mask), dialect(masked, said), dialect(masked, mask)):
        assert without_content(attributes) == {"masked": 1}
    assert without_content(dialect([*seen[:-1], ("user", mask)], said)) == {"masked": 1}


@pytest.mark.parametrize(
    "text",
    [
        *("My name is [REDACTED].", "redacted", "<filter>", "[hide] the key", "**hidden** gem"),
        *(
            "[removed 3 files]",
            "[stripped down]",
            "removed",
            "not captured",
            "Elided",
            "██",
            "███ 30%",
            "• one\n• two",
            "•••x",
        ),
        *("<removed item='a'>", "[x excluded]", "* * *", "**bold**", "_x_", "$5", "[data]"),
    ],
)
def test_a_text_about_masks_is_a_text(text: str) -> None:
    (step,) = assembled(conventions([("user", text)], text)).events
    assert isinstance(step, StepEvent)
    assert step.action.content == text


@pytest.mark.parametrize(
    "reply",
    [
        {"role": "assistant", "parts": [HIDDEN]},
        {"role": "assistant", "parts": [{"type": "text", "content": None}]},
        {"role": "assistant", "parts": []},
        {"role": "assistant", "content": None},
        {"role": "assistant", "content": []},
        {"role": "assistant", "content": ""},
        {"role": "assistant", "content": None, "tool_calls": []},
        {"role": "assistant"},
        {"role": "assistant", "parts": [{"type": "text", "content": "go"}, HIDDEN]},
        {"role": "assistant", "parts": [{"type": "reasoning", "content": "hm"}]},
    ],
)
def test_a_reply_without_its_text_is_no_step(reply: JsonValue) -> None:
    attributes = conventions(*states()[0])
    assert without_content(attributes | {"gen_ai.output.messages": json.dumps([reply])}) == {"incomplete": 1}
    assert without_content(attributes | {"gen_ai.output.messages": [reply]}) == {"incomplete": 1}


@pytest.mark.parametrize(
    "message",
    [
        {"role": "user", "parts": [HIDDEN]},
        {"role": "user", "parts": []},
        {"role": "user"},
        {"role": "tool", "parts": [{"type": "tool_call_response", "id": "1"}]},
    ],
)
def test_a_message_without_its_text_hides_the_chat(message: JsonValue) -> None:
    attributes = conventions(*states()[0])
    assert without_content(attributes | {"gen_ai.input.messages": json.dumps([message])}) == {"incomplete": 1}


def test_a_reply_that_lost_its_calls_is_no_step() -> None:
    seen, said = states()[0]
    said_so: Attributes = {"gen_ai.response.finish_reasons": ["tool_calls"]}
    assert without_content(conventions(seen, said) | said_so) == {"incomplete": 1}
    for dialect, name in (
        (openllmetry, "gen_ai.completion.0.finish_reason"),
        (openinference, "ai.response.finishReason"),
    ):
        assert without_content(dialect(seen, said) | {name: "tool_use"}) == {"incomplete": 1}
        assert len(assembled(dialect(seen, said) | {name: "stop"}).events) == 1
    call = json.dumps([{"role": "assistant", "parts": [{"type": "tool_call", "name": "look", "arguments": {}}]}])
    assert len(assembled(conventions(seen, said) | said_so | {"gen_ai.output.messages": call}).events) == 1


def test_hidden_instructions_hide_the_chat() -> None:
    attributes = conventions([("user", "Go.")], "look")
    for value, reason in (('[{"type":"text"}]', "incomplete"), ("__REDACTED__", "masked")):
        assert without_content(attributes | {"gen_ai.system_instructions": value}) == {reason: 1}


@pytest.mark.parametrize("dialect", [openllmetry, openinference])
def test_a_reply_of_which_only_the_role_arrived_is_no_step(dialect: Any) -> None:
    attributes = dialect(*states()[0])
    reply = next(key for key in attributes if key.endswith("content") and ("completion" in key or "output" in key))
    del attributes[reply]
    assert without_content(attributes) == {"incomplete": 1}
    assert without_content(attributes, dropped_attributes=3) == {"cut off by a limit": 1}


@pytest.mark.parametrize("dialect", [conventions, openllmetry, openinference])
def test_a_span_that_lost_other_attributes_is_read(dialect: Any) -> None:
    (step,) = assembled(dialect(*states()[1]), dropped_attributes=9).events
    assert isinstance(step, StepEvent)
    assert step.flag is None


@pytest.mark.parametrize("dialect", [openllmetry, openinference])
def test_a_tool_may_answer_nothing_unless_attributes_were_dropped(dialect: Any) -> None:
    attributes = dialect([("user", "Go."), ("assistant", "look"), ("tool", "")], "open fridge")
    empty = next(key for key, value in attributes.items() if value == "")
    del attributes[empty]
    (step,) = assembled(attributes).events
    assert isinstance(step, StepEvent)
    assert step.messages[-1].content == ""
    assert without_content(attributes, dropped_attributes=1) == {"cut off by a limit": 1}


def test_json_that_a_limit_on_its_length_cut_off_is_no_content() -> None:
    blocks = json.dumps([{"type": "text", "text": "a long story " * 9}])
    attributes = openllmetry([("user", "Go.")], "look")
    assert without_content(attributes | {"gen_ai.prompt.0.content": blocks[:90]}) == {"cut off by a limit": 1}
    call: Attributes = {
        "gen_ai.completion.0.tool_calls.0.name": "look",
        "gen_ai.completion.0.tool_calls.0.arguments": '{"room": "kit',
    }
    assert without_content(attributes | call) == {"cut off by a limit": 1}
    whole = conventions([("user", "Go.")], "look")
    cut = str(whole["gen_ai.output.messages"])[:-5]
    assert without_content(whole | {"gen_ai.output.messages": cut}) == {"cut off by a limit": 1}


def test_a_text_is_cut_off_where_the_json_beside_it_is() -> None:
    story = "x" * 200
    request = json.dumps({"messages": [{"role": "user", "content": story}]})
    attributes = openinference([("user", story)], "look") | {"input.value": request}
    (step,) = assembled(attributes).events
    assert isinstance(step, StepEvent)
    cut = {key: value[:150] if isinstance(value, str) else value for key, value in attributes.items()}
    assert without_content(cut) == {"cut off by a limit": 1}
    short = openinference([("user", "Go.")], "look") | {"input.value": request[:150]}
    assert len(assembled(short).events) == 1


def test_messages_in_events_of_which_some_were_dropped_are_not_all() -> None:
    events = (
        SpanEvent(name="gen_ai.user.message", time_ns=0, attributes={"content": "Go."}),
        SpanEvent(name="gen_ai.choice", time_ns=1, attributes={"message": '{"content": "look"}'}),
    )
    bare: Attributes = {"gen_ai.operation.name": "chat"}
    assert len(assembled(bare, events=events).events) == 1
    assert without_content(bare, events=events, dropped_events=2) == {"cut off by a limit": 1}


def test_the_steps_beside_a_hidden_call_say_why_nothing_is_learned_from_them() -> None:
    seen, said = states()[1]
    for attributes in (conventions(seen, "__REDACTED__"), conventions([("user", "[REDACTED]")], said)):
        (step,) = two_steps(attributes)
        assert step.flag == "content of a model call in its trace is missing: masked"
    (step,) = two_steps(openinference(seen, said) | {"llm.output_messages.0.message.content": None})
    assert step.flag == "content of a model call in its trace is missing: incomplete"


def test_calls_that_failed_or_were_never_captured_flag_nothing() -> None:
    asked = conventions(*states()[1])
    del asked["gen_ai.output.messages"]
    bare: Attributes = {"gen_ai.operation.name": "chat"}
    for attributes, failed, reason in ((asked, True, "failed"), (bare, False, "not captured")):
        (step,) = two_steps(attributes, failed=failed)
        assert step.flag is None
        assert without_content(attributes, failed=failed) == {reason: 1}
    (step,) = two_steps(asked)
    assert step.flag is not None


def test_a_hidden_call_within_one_that_is_read_hides_nothing() -> None:
    seen, said = states()[0]
    outer = span(1, openinference(seen, said))
    inner = span(2, conventions(seen, "[REDACTED]"), parent_id=outer.span_id)
    (step,) = assemble("run", [outer, inner, root()], {}).events
    assert isinstance(step, StepEvent)
    assert step.flag is None


def test_a_span_without_losses_is_written_as_before() -> None:
    assert b"dropped" not in game()[0].to_json()
    assert Span.model_validate_json(span(1, dropped_attributes=2, failed=True).to_json()).dropped_attributes == 2
