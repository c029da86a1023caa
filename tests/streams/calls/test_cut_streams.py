"""However a stream is chunked, it is read as the same reply that is not streamed; wherever it is cut, never as another.

The streams are drawn at random, from seeds: texts, reasoning and calls in pieces, several choices interleaved, every
line end that server-sent events may have, comments, and data over several lines.
"""

import json
from collections.abc import Callable
from random import Random
from typing import Any

import pytest

from streams.calls.absence import Absence, AbsentContentError
from streams.calls.chat import Chat
from streams.calls.faces import read_call
from streams.calls.records import CapturedCall, Face
from tests.builders.calls import captured

Event = dict[str, Any]
_WORDS = ("open", "Tür", " ", "\n", "冰箱", "🧊", '"', "\\", "data: x", "[DONE]", "\u2028", "{}", "</tool_call>", "0")
_STREAMS, _CUTS = 100, 34


def words(random: Random, least: int = 1) -> str:
    return "".join(random.choices(_WORDS, k=random.randint(least, 6))) + "x" * least


def pieces(random: Random, text: str) -> list[str]:
    cuts = sorted(random.choices(range(len(text) + 1), k=random.randint(0, 3)))
    return [text[begin:end] for begin, end in zip([0, *cuts], [*cuts, len(text)], strict=True)]


def interleaved(random: Random, rows: list[list[Event]]) -> list[Event]:
    found = []
    while rows := [row for row in rows if row]:
        found.append(random.choice(rows).pop(0))
    return found


def arguments(random: Random) -> str:
    return json.dumps({words(random): random.choice([1, None, [words(random)]])}, ensure_ascii=random.random() < 0.5)


def as_text(random: Random, events: list[Event], end: list[str]) -> str:
    """The events as a server may send them."""
    line_end = random.choice(["\n", "\r\n", "\r"])
    lines = [": hello", ""] if random.random() < 0.5 else []
    for event in events:
        lines += [": ping"] if random.random() < 0.1 else []
        lines += [f"event: {event['type']}"] if "type" in event else []
        text = json.dumps(event, indent=1 if random.random() < 0.3 else None, ensure_ascii=random.random() < 0.5)
        lines += [f"data:{random.choice(['', ' '])}{line}" for line in text.split("\n")]
        lines += ["", ""] if random.random() < 0.1 else [""]
    return "".join(line + line_end for line in [*lines, *end])


def chat_reply(random: Random) -> tuple[Event, Event, list[Event]]:
    count = random.randint(1, 3)
    choices, rows = [], []
    for index in range(count):
        told: Event = {"role": "assistant", "content": None}
        row: list[Event] = [{"role": "assistant"}]
        for name in random.sample(["reasoning_content", "content"], k=random.randint(0, 2)):
            told[name] = words(random)
            row += [{name: piece} for piece in pieces(random, told[name])]
        told["tool_calls"] = []
        for number in range(random.randint(0 if told["content"] else 1, 3)):
            function = {"name": f"f{number}", "arguments": arguments(random)}
            told["tool_calls"].append({"id": f"c{number}", "type": "function", "function": function})
            begun: Event = {
                "index": number,
                "id": f"c{number}",
                "type": "function",
                "function": {**function, "arguments": ""},
            }
            row.append({"tool_calls": [begun]})
            for piece in pieces(random, function["arguments"]):
                row.append({"tool_calls": [{"index": number, "function": {"arguments": piece}}]})
        finish = "tool_calls" if told["tool_calls"] else "stop"
        choices.append({"index": index, "message": told, "finish_reason": finish})
        chunks = [{"index": index, "delta": delta, "finish_reason": None} for delta in row]
        chunks.append({"index": index, "delta": {}, "finish_reason": finish})
        rows.append([{"choices": [chunk]} for chunk in chunks])
    usage: Event = {"choices": [], "usage": {"total_tokens": 9}}
    events: list[Event] = [*interleaved(random, rows), *[usage] * random.randint(0, 1)]
    request = {"messages": [{"role": "user", "content": words(random)}], "n": count}
    return request, {"choices": choices}, events


def completion_reply(random: Random) -> tuple[Event, Event, list[Event]]:
    count, texts = 2, [words(random), words(random)]
    rows = [[Event(index=at, text=piece) for piece in pieces(random, text)] for at, text in enumerate(texts)]
    rows = [[*row, Event(index=at, finish_reason="stop")] for at, row in enumerate(rows)]
    events: list[Event] = [{"choices": [choice]} for choice in interleaved(random, rows)]
    choices = [{"index": at, "text": text, "finish_reason": "stop"} for at, text in enumerate(texts)]
    return {"prompt": words(random), "n": count}, {"choices": choices}, events


def responses_reply(random: Random) -> tuple[Event, Event, list[Event]]:
    text = words(random)
    items: list[Event] = [
        {"type": "reasoning", "id": "rs", "summary": [{"type": "summary_text", "text": words(random)}]},
        {"type": "message", "id": "msg", "role": "assistant", "content": [{"type": "output_text", "text": text}]},
        {"type": "function_call", "id": "fc", "call_id": "c", "name": "f", "arguments": arguments(random)},
    ][random.randint(0, 1) :]
    whole = {"id": "resp", "object": "response", "status": "completed", "error": None, "output": items}
    events: list[Event] = [{"type": "response.created", "response": whole | {"status": "in_progress", "output": []}}]
    for index, item in enumerate(items):
        events.append({"type": "response.output_item.added", "output_index": index, "item": item | {"status": "x"}})
        events += [{"type": "response.output_text.delta", "delta": piece} for piece in pieces(random, text)]
        events.append({"type": "response.output_item.done", "output_index": index, "item": item})
    told = whole if random.random() < 0.5 else whole | {"output": []}
    return {"input": words(random)}, whole, [*events, {"type": "response.completed", "response": told}]


def anthropic_reply(random: Random) -> tuple[Event, Event, list[Event]]:
    names = ["thinking"] * random.randint(0, 1) + ["text"] * random.randint(0, 1) + ["tool_use"] * random.randint(1, 3)
    blocks: list[Event] = []
    rows: list[list[Event]] = []
    for index, kind in enumerate(names):
        name = "partial_json" if kind == "tool_use" else kind
        text = arguments(random) if kind == "tool_use" else words(random)
        start: Event = {"type": kind, kind: ""}
        if kind == "tool_use":
            start = {"type": kind, "id": f"t{index}", "name": "f", "input": {}}
        blocks.append(start | ({"input": json.loads(text)} if kind == "tool_use" else {kind: text}))
        of = {"thinking": "thinking_delta", "text": "text_delta", "tool_use": "input_json_delta"}[kind]
        deltas: list[Event] = [
            {"type": "content_block_delta", "index": index, "delta": {"type": of, name: piece}}
            for piece in pieces(random, text)
        ]
        begun: Event = {"type": "content_block_start", "index": index, "content_block": start}
        rows.append([begun, *deltas, {"type": "content_block_stop", "index": index}])
    whole = {"type": "message", "role": "assistant", "content": blocks, "stop_reason": "tool_use"}
    events: list[Event] = [
        {"type": "message_start", "message": whole | {"content": [], "stop_reason": None}},
        *interleaved(random, rows),
        {"type": "message_delta", "delta": {"stop_reason": "tool_use"}},
        {"type": "message_stop"},
    ]
    return {"messages": [{"role": "user", "content": words(random)}]}, whole, events


def read_or_reason(call: CapturedCall) -> list[Chat] | Absence:
    try:
        return read_call(call)
    except AbsentContentError as error:
        return error.absence


Drawn = Callable[[Random], tuple[Event, Event, list[Event]]]
FACES: tuple[tuple[Face, Drawn, bool], ...] = (
    (Face.CHAT, chat_reply, True),
    (Face.COMPLETIONS, completion_reply, True),
    (Face.RESPONSES, responses_reply, False),
    (Face.ANTHROPIC, anthropic_reply, False),
)


@pytest.mark.parametrize(("face", "draw", "marks_its_end"), FACES)
def test_a_stream_is_read_as_the_same_whole_reply_and_cut_anywhere_as_nothing_else(
    face: Face, draw: Drawn, marks_its_end: bool
) -> None:
    whole_ones = 0
    for seed in range(_STREAMS):
        random = Random(seed)
        request, reply, events = draw(random)
        want = read_call(captured(face, request, reply))
        text = as_text(random, events, ["data: [DONE]", ""] if marks_its_end else [])
        assert read_call(captured(face, request, text, streamed=True)) == want, (face, seed)
        for _ in range(_CUTS):
            cut = text[: random.randrange(len(text))]
            found = read_or_reason(captured(face, request, cut, streamed=True, complete=False))
            assert found in (want, Absence.INCOMPLETE), (face, seed)
            whole_ones += found == want
    # Behind the end of the reply there is little left to be cut.
    assert whole_ones < _STREAMS * _CUTS / 2


def spoilt(random: Random, value: Any) -> Any:
    """The value with something else in a place of it."""
    if isinstance(value, dict | list) and value and random.random() < 0.9:
        key = random.choice(list(value) if isinstance(value, dict) else range(len(value)))
        inner = spoilt(random, value[key])
        return value | {key: inner} if isinstance(value, dict) else [*value[:key], inner, *value[key + 1 :]]
    return random.choice([None, True, -1, 1.5, "", "x", [], {}, [[]], {"type": "x"}, ["x"], {"x": [None]}, 10**30])


@pytest.mark.parametrize(("face", "draw", "marks_its_end"), FACES)
def test_a_call_with_anything_in_any_place_is_read_or_refused(face: Face, draw: Drawn, marks_its_end: bool) -> None:
    for seed in range(2000):
        random = Random(seed)
        request, reply, events = draw(random)
        if random.random() < 0.3:
            read_or_reason(captured(face, spoilt(random, request), reply))
        elif random.random() < 0.5:
            read_or_reason(captured(face, request, spoilt(random, reply)))
        else:
            text = as_text(random, spoilt_events(random, events), [])
            read_or_reason(captured(face, request, text))


def spoilt_events(random: Random, events: list[Event]) -> list[Event]:
    at = random.randrange(len(events))
    found = spoilt(random, events[at])
    return [*events[:at], *([found] if isinstance(found, dict) else []), *events[at + 1 :]]


@pytest.mark.parametrize(("face", "draw", "marks_its_end"), FACES)
def test_a_stream_that_the_gateway_had_to_end_by_an_error_has_failed(
    face: Face, draw: Drawn, marks_its_end: bool
) -> None:
    for seed in range(_STREAMS):
        random = Random(seed)
        request, _, events = draw(random)
        text = as_text(random, events, [])
        error = '\n\ndata: {"error": {"message": "not finished", "code": "service_unavailable"}}\n\n'
        cut = text[: random.randrange(len(text))] + error
        assert read_or_reason(captured(face, request, cut, streamed=True)) == Absence.FAILED, (face, seed)
