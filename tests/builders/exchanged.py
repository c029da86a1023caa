"""Random conversations: every kind of message that the OpenAI API has, with parallel calls and tools that change."""

import json
from typing import Any

from hypothesis import strategies as st

from ratchet_client.messages import TOOLS, Message, Tools
from streams.branch_events import RecordedStep, with_changes
from streams.exchange.conversation import Conversation, Facts

# Text of any language, but for halves of surrogate pairs, which are no text.
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
# Fields of a newer API, and such as other formats have a meaning for.
_EXTRA = st.dictionaries(
    st.sampled_from(["name", "refusal", "annotations", "thinking", "reasoning", "function_call", "x"]),
    st.recursive(
        st.none() | st.booleans() | st.integers(-(2**53), 2**53) | TEXT,
        lambda inner: st.lists(inner, max_size=2) | st.dictionaries(TEXT, inner, max_size=2),
        max_leaves=4,
    ),
    max_size=2,
)
_ARGUMENTS = st.dictionaries(TEXT, st.integers() | TEXT | st.none(), max_size=2)
# Arguments as models write them: spaced, compact, not an object, not JSON at all.
_ARGUMENTS_TEXT = (
    _ARGUMENTS.map(lambda value: json.dumps(value, ensure_ascii=False))
    | _ARGUMENTS.map(lambda value: json.dumps(value, separators=(",", ":")))
    | st.sampled_from(["", "[1]", '{"a": NaN}', '{"a": 1.10, "a": 2}', '{"s": "\\ud800"}', "null"])
    | TEXT
)
_IDS = st.sampled_from(["", "call_1", "call_2", "call_3"])
_CALL = st.fixed_dictionaries(
    {"id": _IDS, "type": st.just("function")},
    optional={"index": st.integers(0, 3)},
).flatmap(
    lambda call: st.fixed_dictionaries({"name": TEXT, "arguments": _ARGUMENTS_TEXT}).map(
        lambda function: call | {"function": function}
    )
) | st.just({"id": "call_9", "type": "custom", "custom": {"name": "shell", "input": "ls"}})
_PART = (
    TEXT.map(lambda text: {"type": "text", "text": text})
    | st.sampled_from(["https://a.example/b.png", "data:image/png;base64,aGk=", "https://a.example/b"]).map(
        lambda url: {"type": "image_url", "image_url": {"url": url}}
    )
    | st.just({"type": "image_url", "image_url": {"url": "https://a.example/b.png", "detail": "low"}})
    | st.just({"type": "input_audio", "input_audio": {"data": "aGk=", "format": "wav"}})
    | st.just({"type": "file", "file": {"file_id": "f-1"}})
)
_CONTENT = TEXT | st.none() | st.lists(_PART, max_size=2)
_TOOLS: st.SearchStrategy[Tools] = st.lists(
    st.sampled_from(["look", "buy", "sell"]).map(
        lambda name: {
            "type": "function",
            "function": {"name": name, "parameters": {"type": "object", "properties": {"n": {"default": None}}}},
        }
    ),
    max_size=2,
).map(TOOLS.validate_python)


def _message(role: str, **fields: st.SearchStrategy[Any]) -> st.SearchStrategy[Message]:
    base = st.fixed_dictionaries({"content": _CONTENT, **fields})
    return st.builds(lambda known, extra: Message.model_validate({**extra, **known, "role": role}), base, _EXTRA)


_OTHERS = (
    _message("user") | _message("system") | _message("developer") | _message("tool", tool_call_id=_IDS | st.none())
)
_ASSISTANTS = _message(
    "assistant",
    tool_calls=st.none() | st.lists(_CALL, max_size=3),
    reasoning_content=st.none() | TEXT,
)


@st.composite
def conversations(draw: st.DrawFn) -> Conversation:
    """A conversation that an agent may have had; its facts are those of an episode of the store."""
    opening = draw(st.lists(_OTHERS | _ASSISTANTS, min_size=1, max_size=4))
    taken = draw(st.lists(st.tuples(_ASSISTANTS, st.lists(_OTHERS, max_size=3)), min_size=1, max_size=4))
    offered: list[Tools] = draw(st.lists(_TOOLS, min_size=len(taken), max_size=len(taken)))
    return Conversation(
        opening=tuple(opening),
        steps=tuple(
            RecordedStep(action=action, observation=tuple(observation), tools=tools)
            for (action, observation), tools in zip(taken, with_changes(offered), strict=True)
        ),
        facts=Facts(episode_id="e-1", agent="agent", task_id="t/1", seed=3, success=True, score=0.5, actor="expert"),
    )
