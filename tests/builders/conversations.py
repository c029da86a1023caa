"""Hypothesis strategies: any valid conversation, as agents publish it, and any result of branching it."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from hypothesis import strategies as st

from ratchet_client.events import Actor
from ratchet_client.messages import ContentPart, FunctionCall, Message, Messages, ToolCall, Tools, as_definition
from streams.branch_events import Alternative, BranchResult, Failure, RecordedStep, Recovery, RecoveryResult

# What JSON, SQL and templates could trip over, and nothing that redaction or the signs of injection look for.
_PIECES = st.sampled_from(
    [
        *("go", "kettle", "Größe", "注文", "🫖", "e\u0301", " ", "\n", "\t", "\r", "\x00", "\x1f", "\x7f", "\ufeff"),
        *("\u2028", "\U0010ffff", '"', "'", "\\", "\\n", "{", "}", "[]", "{}", ":", ",", "null", "true", "-1.50", "7"),
        *("$x", "<b>", "</s>", "{{x}}", "%s", ";--"),
    ]
)  # fmt: skip
TEXTS = st.lists(_PIECES, max_size=8).map("".join)
_NAMES = TEXTS.filter(bool) | st.sampled_from(["name", "annotations", "index", "cache_control", "text", "model_config"])
_SCALARS = (
    st.none() | st.booleans() | st.integers(-999, 2**70) | st.floats(allow_nan=False, allow_infinity=False) | TEXTS
)
JSON = st.recursive(
    _SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_NAMES, inner, max_size=3), max_leaves=8
)
_PICTURES = st.fixed_dictionaries(
    {
        "type": st.sampled_from(["image_url", "file", "input_audio", "thinking"]),
        "value": JSON.filter(lambda x: x is not None),
    }
)


def _extra(*known: str) -> st.SearchStrategy[dict[str, Any]]:
    """Fields of a newer API. A null is the same as none; the last three are speech that is not text."""
    taken = {*known, "refusal", "audio", "function_call"}
    values = JSON.filter(lambda value: value is not None)
    return st.just({}) | st.dictionaries(_NAMES.filter(lambda name: name not in taken), values, max_size=2)


@st.composite
def parts(draw: st.DrawFn) -> ContentPart:
    known = {"type": draw(st.sampled_from(["text", "input_text"])), "text": draw(TEXTS)}
    return ContentPart.model_validate(draw(_extra(*ContentPart.model_fields)) | known)


CONTENTS = st.none() | TEXTS | st.lists(parts(), max_size=3)


@st.composite
def messages(draw: st.DrawFn, /, role: str, **fields: Any) -> Message:
    known = {"role": role, "content": draw(CONTENTS)} | fields
    return Message.model_validate(draw(_extra(*Message.model_fields)) | known)


@st.composite
def actions(draw: st.DrawFn) -> Message:
    """An assistant's message: with a text, reasoning, parallel calls, or nothing at all."""
    names = draw(st.lists(st.sampled_from(["call_1", "call_2", "x|y", "7", "注"]), unique=True, max_size=3))
    calls = []
    for name in names:
        known = {"name": draw(_NAMES), "arguments": draw(TEXTS | JSON.map(json.dumps))}
        function = FunctionCall.model_validate(draw(_extra("name", "arguments")) | known)
        calls.append(ToolCall.model_validate(draw(_extra(*ToolCall.model_fields)) | {"id": name, "function": function}))
    fields = {"tool_calls": calls or draw(st.sampled_from([None, []])), "reasoning_content": draw(st.none() | TEXTS)}
    return draw(messages("assistant", **fields))


@st.composite
def observations(draw: st.DrawFn, /, action: Message, complete: bool = True) -> Messages:
    """A result of every call, in any order, and words of others between them."""
    results = [draw(messages("tool", tool_call_id=call.id)) for call in action.calls]
    others = [
        draw(messages(role)) for role in draw(st.lists(st.sampled_from(["user", "system", "developer"]), max_size=2))
    ]
    came = draw(st.permutations([*results, *others]))
    return tuple(came if complete else came[: draw(st.integers(0, len(came)))])


TOOLS: st.SearchStrategy[Tools] = st.lists(
    st.dictionaries(_NAMES, JSON, max_size=3).map(as_definition), max_size=2
).map(tuple)


@st.composite
def conversations(draw: st.DrawFn) -> tuple[Messages, Sequence[tuple[Message, Messages, Tools]]]:
    """The messages of the first state, and the turns after it: an action, what came back, and the tools offered."""
    opening = [
        draw(messages(role))
        for role in draw(st.lists(st.sampled_from(["system", "developer", "user"]), min_size=1, max_size=3))
    ]
    if draw(st.booleans()):
        shot = draw(actions())
        opening += (shot, *draw(observations(shot)))
    offered = draw(st.lists(TOOLS, min_size=1, max_size=3))
    count = draw(st.integers(1, 4))
    turns = []
    for number in range(count):
        action = draw(actions())
        turns.append((action, draw(observations(action, complete=number < count - 1)), draw(st.sampled_from(offered))))
    return tuple(opening), turns


ACTORS = st.builds(Actor, kind=st.sampled_from(["policy", "expert", "human"]), adapter=st.none() | st.just("a-1"))


@st.composite
def steps(draw: st.DrawFn) -> tuple[RecordedStep, ...]:
    """Steps of a recovery, the tools where they change."""
    chosen = draw(st.lists(actions(), min_size=1, max_size=3))
    return tuple(
        RecordedStep(action=action, observation=draw(observations(action)), tools=draw(st.none() | TOOLS))
        for action in chosen
    )


@st.composite
def branch_results(draw: st.DrawFn, /, known: Mapping[str, Any]) -> BranchResult:
    chosen = draw(st.lists(actions(), max_size=3, unique_by=lambda action: action.to_json()))
    return BranchResult(
        requested=len(chosen),
        fidelity="sandbox_exact",
        policy="base",
        reason=draw(TEXTS),
        alternatives=tuple(
            Alternative(
                action=action,
                observation=draw(observations(action, complete=False)),
                done=draw(st.booleans()),
                score=draw(st.floats(0, 1)),
                source=draw(st.sampled_from(["policy", "valid_actions", "mutation"])),
            )
            for action in chosen
        ),
        failures=tuple(Failure(action=action, failure_kind="died") for action in draw(st.lists(actions(), max_size=2))),
        **known,
    )


@st.composite
def recovery_results(draw: st.DrawFn, /, known: Mapping[str, Any], count: int) -> RecoveryResult:
    return RecoveryResult(
        attempts=3,
        sandbox_steps=9,
        fidelity="sandbox_replayed",
        policy="base",
        recoveries=tuple(
            Recovery(left_at=draw(st.integers(0, count - 1)), steps=draw(steps()), score=1.0, source="policy")
            for _ in range(draw(st.integers(0, 2)))
        ),
        **known,
    )
