"""What is written in a format is read back equal, and files of other tools are read as they mean it."""

import json
import re
from typing import Any

import pytest
from atif import Trajectory
from hypothesis import given

from ratchet_client.messages import Message, assistant, call, tool_result, user
from streams.errors import ExchangeError
from streams.exchange import atif, chat_jsonl
from streams.exchange.conversation import NOT_LEARNED, Conversation
from streams.exchange.formats import FORMATS, FormatName
from tests.builders.exchanged import conversations

TURN: list[Any] = [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}]
WEATHER: dict[str, Any] = {
    "type": "function",
    "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}},
}


def said(conversation: Conversation) -> list[tuple[str, str]]:
    return [(message.role, message.text) for message in conversation.messages]


@pytest.mark.parametrize("name", FormatName)
@given(conversation=conversations())
def test_any_conversation_is_read_back_as_it_was_written(name: FormatName, conversation: Conversation) -> None:
    line = FORMATS[name].write(conversation)
    assert b"\n" not in line
    again = FORMATS[name].read(json.loads(line))
    assert again.opening == conversation.opening
    assert again.steps == conversation.steps
    assert again.flag is None
    for known in ("episode_id", "agent", "task_id", "seed", "success", "score", "actor"):
        assert getattr(again.facts, known) == getattr(conversation.facts, known)


@given(conversation=conversations())
def test_what_is_written_as_atif_is_valid_and_says_it_in_atifs_own_fields(conversation: Conversation) -> None:
    trajectory = Trajectory.model_validate_json(atif.write(conversation))
    acted = [step for step in trajectory.steps if step.source == "agent" and not step.is_copied_context]
    assert len(acted) == len(conversation.steps)
    for step, recorded in zip(acted, conversation.steps, strict=True):
        names = [each.function.name for each in recorded.action.calls if each.function]
        assert [each.function_name for each in step.tool_calls or ()] == names
        assert step.reasoning_content == recorded.action.reasoning_content
        if isinstance(recorded.action.content, str):
            assert step.message == recorded.action.content


def test_a_plain_tool_call_needs_no_extra_in_atif() -> None:
    conversation = chat_jsonl.read(
        {
            "messages": [
                {"role": "user", "content": "Is it warm in Bern?"},
                {
                    "role": "assistant",
                    "tool_calls": [
                        {
                            "id": "c1",
                            "type": "function",
                            "function": {"name": "weather", "arguments": '{"city": "Bern"}'},
                        }
                    ],
                },
                {"role": "tool", "tool_call_id": "c1", "content": "18"},
                {"role": "assistant", "content": "Yes."},
            ],
            "tools": [WEATHER],
        }
    )
    trajectory = Trajectory.model_validate_json(atif.write(conversation))
    assert [step.extra for step in trajectory.steps] == [None, None, None]
    assert trajectory.steps[1].observation is not None
    (result,) = trajectory.steps[1].observation.results
    assert (result.source_call_id, result.content, result.extra) == ("c1", "18", None)
    assert trajectory.agent.tool_definitions == [WEATHER]


def test_a_tool_calling_example_of_trl_is_read() -> None:
    line: dict[str, Any] = {
        "messages": [
            {"role": "user", "content": "Turn on the living room lights.", "tool_calls": None},
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [
                    {
                        "type": "function",
                        "function": {"name": "control_light", "arguments": {"room": "living room", "state": "on"}},
                    }
                ],
            },
            {"role": "tool", "name": "control_light", "content": "The lights in the living room are now on."},
            {"role": "assistant", "content": "Done!"},
        ],
        "tools": json.dumps([WEATHER]),
    }
    conversation = chat_jsonl.read(line)
    assert len(conversation.steps) == 2
    assert conversation.tools(0) == (WEATHER,)
    (called,) = conversation.steps[0].action.calls
    assert called.function is not None
    assert json.loads(called.function.arguments) == {"room": "living room", "state": "on"}
    assert conversation.steps[0].observation == (
        Message.model_validate(
            {"role": "tool", "name": "control_light", "content": "The lights in the living room are now on."}
        ),
    )
    assert chat_jsonl.read(line | {"tools": [WEATHER]}).steps == conversation.steps
    assert chat_jsonl.read(line | {"tools": [json.dumps(WEATHER)]}).steps == conversation.steps
    assert chat_jsonl.read(line | {"tools": [WEATHER["function"]]}).steps == conversation.steps
    for nothing in ("null", '""', '"[]"', "[]"):
        assert chat_jsonl.read(line | {"tools": json.loads(nothing)}).tools(1) == ()


def test_a_line_of_openais_fine_tuning_is_read() -> None:
    line: dict[str, Any] = {
        "messages": [
            {"role": "system", "content": "Marv is sarcastic."},
            {"role": "user", "content": "What's the capital of France?"},
            {"role": "assistant", "content": "Paris", "weight": 0},
            {"role": "user", "content": "Can you be more sarcastic?"},
            {"role": "assistant", "content": "Paris, as if everyone doesn't know.", "weight": 1},
        ],
        "parallel_tool_calls": False,
        "source": "web",
    }
    conversation = chat_jsonl.read(line)
    assert (len(conversation.opening), conversation.flag) == (4, None)
    assert conversation.steps[0].action == assistant("Paris, as if everyone doesn't know.")
    assert conversation.left_out == {"parallel_tool_calls", "source"}


def test_an_older_function_call_is_a_tool_call() -> None:
    conversation = chat_jsonl.read(
        {
            "messages": [
                {"role": "user", "content": "Is it warm?"},
                {"role": "assistant", "content": None, "function_call": {"name": "weather", "arguments": "{}"}},
                {"role": "function", "name": "weather", "content": "18"},
                {"role": "assistant", "thinking": "18 is warm.", "content": "Yes."},
            ],
            "functions": [WEATHER["function"]],
        }
    )
    assert conversation.steps[0].action == assistant(None, call("weather", "{}"))
    assert conversation.steps[0].observation[0].role == "tool"
    assert conversation.steps[1].action == assistant("Yes.", reasoning="18 is warm.")
    assert conversation.tools(1) == (WEATHER,)


def test_tools_in_another_apis_form_and_calls_with_nulls_are_read() -> None:
    made = {"id": None, "type": None, "function": {"name": "weather", "arguments": {"city": "Bern"}}}
    action: dict[str, Any] = {"role": "assistant", "content": None, "tool_calls": [made]}
    chat: list[Any] = [{"role": "user", "content": "Is it warm?"}, action]
    flat: dict[str, Any] = {"type": "function", **WEATHER["function"]}
    schema = {"type": "object", "properties": {}}
    anthropic: dict[str, Any] = {"name": "f", "input_schema": schema}
    read = chat_jsonl.read({"messages": chat, "tools": [flat, anthropic]})
    assert read.steps[0].action == assistant(None, call("weather", '{"city":"Bern"}'))
    assert read.tools(0) == (WEATHER, {"type": "function", "function": {"name": "f", "parameters": schema}})


def test_a_prompt_is_not_learned_from_and_its_completion_is() -> None:
    turns: list[dict[str, Any]] = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
    conversation = chat_jsonl.read({"prompt": [*turns, turns[0]], "completion": [turns[1]]})
    assert (len(conversation.opening), len(conversation.steps), conversation.flag) == (3, 1, None)


def test_assistants_in_a_row_are_steps_with_nothing_between_them() -> None:
    roles = ["assistant", "user", "assistant", "assistant", "user", "tool"]
    messages: list[Any] = [{"role": role, "content": role} for role in roles]
    conversation = chat_jsonl.read({"messages": messages})
    assert [message.role for message in conversation.opening] == ["assistant", "user"]
    assert [len(step.observation) for step in conversation.steps] == [0, 2]


def test_an_action_in_the_middle_that_must_not_be_learned_from_flags_all_of_it() -> None:
    weights = [None, 1, None, 0, None, 1]
    messages: list[Any] = [
        {"role": "user", "content": "x"} if weight is None else {"role": "assistant", "content": "y", "weight": weight}
        for weight in weights
    ]
    conversation = chat_jsonl.read({"messages": messages})
    assert (len(conversation.steps), conversation.flag) == (3, NOT_LEARNED)


@pytest.mark.parametrize(
    ("line", "error"),
    [
        ({"conversations": []}, "messages: the column is missing; there are conversations"),
        ({"messages": "hello"}, "messages: it is not a list"),
        ({"messages": []}, "no assistant's message"),
        ({"messages": [{"role": "assistant", "content": "x"}]}, "no assistant's message"),
        ({"messages": [{"role": "user", "content": "x"}]}, "no assistant's message"),
        ({"messages": [{"role": "user", "content": "x"}, 3]}, "messages.1: it is not an object"),
        ({"messages": [{"role": "user", "content": "x"}, {"role": "gpt", "content": "y"}]}, "messages.1.role: Input"),
        ({"messages": [{"role": "user", "content": 3}]}, "messages.0.content"),
        ({"messages": TURN, "tools": "[{"}, "tools: its text is not JSON"),
        ({"messages": TURN, "tools": 3}, "tools: it is neither a list"),
        ({"messages": TURN, "tools": [3]}, "tools.0: it is not the definition"),
        ({"messages": TURN, "ratchet": {"opening": 7}}, "no assistant's message"),
        ({"messages": TURN, "ratchet": {"tools": 7}}, "tools: Input"),
    ],
)
def test_an_error_says_what_is_wrong_and_where(line: dict[str, Any], error: str) -> None:
    with pytest.raises(ExchangeError, match=re.escape(error)):
        chat_jsonl.read(line)


def trajectory(**more: Any) -> dict[str, Any]:
    """A trajectory as other tools write it: two parallel calls, an action without a tool, a delegated task."""
    calls = [{"tool_call_id": f"c{n}", "function_name": "weather", "arguments": {"day": n}} for n in (1, 2)]
    return {
        "schema_version": "ATIF-v1.8",
        "session_id": "run-1",
        "agent": {"name": "terminus", "version": "2.0", "model_name": "qwen", "tool_definitions": [WEATHER]},
        "steps": [
            {"step_id": 1, "source": "system", "message": "Be brief."},
            {"step_id": 2, "source": "user", "message": "Is it warm?", "timestamp": "2026-11-01T10:00:00Z"},
            {
                "step_id": 3,
                "source": "agent",
                "message": "",
                "timestamp": "2026-11-01T10:00:01Z",
                "reasoning_content": "Ask twice.",
                "tool_calls": calls,
                "observation": {"results": [{"source_call_id": f"c{n}", "content": str(n)} for n in (2, 1)]},
                "metrics": {"prompt_tokens": 4},
            },
            {"step_id": 4, "source": "agent", "message": "ls", "observation": {"results": [{"content": "a b"}]}},
            {"step_id": 5, "source": "agent", "message": "Yes."},
        ],
        **more,
    }


def test_a_trajectory_of_another_tool_is_read() -> None:
    final = {"final_metrics": {"total_steps": 5, "extra": {"reward": 0.75}}, "notes": "n"}
    document = Trajectory.model_validate(trajectory(**final)).to_json_dict()
    conversation = atif.read(document)
    assert said(conversation)[:2] == [("system", "Be brief."), ("user", "Is it warm?")]
    first, second, third = conversation.steps
    assert first.action == assistant(
        None, call("weather", '{"day": 1}', "c1"), call("weather", '{"day": 2}', "c2"), reasoning="Ask twice."
    )
    assert first.observation == (tool_result("2", "c2"), tool_result("1", "c1"))
    assert (second.action, second.observation) == (assistant("ls"), (user("a b"),))
    assert (third.action, third.observation) == (assistant("Yes."), ())
    assert conversation.tools(2) == (WEATHER,)
    assert (conversation.facts.agent, conversation.facts.adapter, conversation.identity) == (
        "terminus",
        "qwen",
        "run-1",
    )
    assert (conversation.facts.success, conversation.facts.score) == (None, 0.75)
    assert conversation.left_out == {
        *("notes", "steps.metrics", "session_id", "agent.version", "final_metrics.total_steps")
    }
    assert conversation.of_policies == {"agent.model_name"}
    when = conversation.recorded_at[0]
    assert when is not None
    assert when.isoformat() == "2026-11-01T10:00:01+00:00"


def test_what_a_trajectory_says_and_an_event_cannot_is_named() -> None:
    agent = {"name": "a", "version": "1", "extra": {"commit": "c"}}
    metrics = {"total_cost_usd": 0.5, "total_cached_tokens": None, "extra": {"reward": 1, "turns": 3}}
    document = trajectory(
        trajectory_id="t", agent=agent, final_metrics=metrics, extra={"success": True, "host": "h", "ratchet": {}}
    )
    conversation = atif.read(document)
    assert conversation.left_out == {
        *("session_id", "trajectory_id", "agent.version", "agent.extra", "extra.host", "steps.metrics"),
        *("final_metrics.total_cost_usd", "final_metrics.extra.turns"),
    }
    assert conversation.of_policies == set()


@given(conversation=conversations())
def test_of_what_ratchet_itself_wrote_nothing_is_left_out(conversation: Conversation) -> None:
    for file_format in FORMATS.values():
        again = file_format.read(json.loads(file_format.write(conversation)))
        assert not again.left_out
        assert again.warning == ""


@pytest.mark.parametrize(
    ("version", "warned"), [("ATIF-v1.2", False), ("ATIF-v1.8", False), ("ATIF-v1.9", True), ("ATIF-v1.10", True)]
)
def test_a_newer_version_is_warned_of(version: str, warned: bool) -> None:
    assert ("newer" in atif.read(trajectory(schema_version=version)).warning) is warned


def test_copied_context_is_not_learned_from() -> None:
    document = trajectory()
    document["steps"][2]["is_copied_context"] = True
    conversation = atif.read(document)
    assert (len(conversation.opening), len(conversation.steps), conversation.flag) == (5, 2, None)
    document = trajectory()
    document["steps"][3]["llm_call_count"] = 0
    assert atif.read(document).flag == NOT_LEARNED


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"schema_version": "ATIF-v2.0"}, "not a version 1"),
        ({"steps": []}, "no assistant's message"),
        ({"steps": [{"step_id": 2, "source": "user", "message": "x"}]}, "not sequential"),
        ({"stepps": []}, "stepps"),
        ({"extra": {"ratchet": {"seed": "x"}}}, "seed"),
    ],
)
def test_an_error_in_a_trajectory_says_what_is_wrong(change: dict[str, Any], error: str) -> None:
    with pytest.raises(ExchangeError, match=error):
        atif.read(trajectory() | change)


def test_extra_under_our_name_may_hold_anything() -> None:
    assert len(atif.read(trajectory(extra={"ratchet": "a tool"})).steps) == 3
