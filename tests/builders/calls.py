"""Captured calls of any face, and what they are read as."""

import json
from typing import Any

import pytest

from streams.calls.absence import Absence, AbsentContentError
from streams.calls.chat import Chat
from streams.calls.faces import read_call
from streams.calls.records import CapturedCall, Face

FUNCTION = {"name": "open", "description": "Opens.", "parameters": {"type": "object", "properties": {}}}
TOOL = {"type": "function", "function": FUNCTION}


def captured(face: Face, request: Any, reply: Any, **fields: Any) -> CapturedCall:
    texts = [text if isinstance(text, str) else json.dumps(text) for text in (request, reply)]
    return CapturedCall(
        receipt="r.0123456789abcdef",
        face=face,
        served="adapter-1",
        began_ns=1,
        ended_ns=2,
        request=texts[0],
        reply=texts[1],
        **fields,
    )


def stream(*events: Any, done: bool = True, named: bool = False) -> str:
    told = [f"event: {event.get('type')}\n" * named + f"data: {json.dumps(event)}\n\n" for event in events]
    return "".join([*told, "data: [DONE]\n\n" * done])


def read(face: Face, request: Any, reply: Any, **fields: Any) -> Chat:
    [chat] = read_call(captured(face, request, reply, **fields))
    return chat


def absence(face: Face, request: Any, reply: Any, **fields: Any) -> Absence:
    with pytest.raises(AbsentContentError) as raised:
        read_call(captured(face, request, reply, **fields))
    return raised.value.absence
