"""The bodies of requests and replies as they went over the wire: a JSON object, or a stream of server-sent events.

The form of streams is https://html.spec.whatwg.org/multipage/server-sent-events.html#parsing-an-event-stream.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NoReturn, TypeAlias

from pydantic import JsonValue
from pydantic_core import from_json

from streams.calls.absence import Absence, AbsentContentError

Body: TypeAlias = dict[str, JsonValue]

_LINE_END = re.compile(r"\r\n|\n|\r")
_DONE = "[DONE]"


@dataclass(frozen=True, slots=True)
class Stream:
    """A streamed reply: its events, each with its name, and whether it was told to be `done`."""

    events: tuple[tuple[str, Body], ...]
    done: bool


def refuse(absence: Absence, message: str) -> NoReturn:
    raise AbsentContentError(absence, message)


def read_object(text: str, of: str) -> Body:
    """The JSON object that the body of a request or a reply is. `of` names it in errors.

    Raises `AbsentContentError`: incomplete where the text is the beginning of an object.
    """
    try:
        value = from_json(text, allow_inf_nan=False)
    except ValueError:
        refuse(Absence.INCOMPLETE if _begins(text) else Absence.NOT_UNDERSTOOD, f"the {of} is not JSON")
    return value if isinstance(value, dict) else refuse(Absence.NOT_UNDERSTOOD, f"the {of} is not a JSON object")


def read_reply(text: str) -> Body | Stream:
    """The reply, streamed or not: some servers answer a request for a stream by one object.

    Raises `AbsentContentError`: failed for one that is an error.
    """
    body = text.lstrip("\ufeff \t\r\n")
    if body.startswith("{"):
        reply = read_object(body, "reply")
        return _failed(reply) if _is_error("", reply) else reply
    return _read_stream(body)


def _read_stream(text: str) -> Stream:
    found: list[tuple[str, Body]] = []
    broken = False
    for name, data, ended in _events(text):
        if data.strip() == _DONE:
            return Stream(tuple(found), True) if not broken else _broken()
        try:
            value = from_json(data, allow_inf_nan=False)
        except ValueError:
            if not _begins(data):
                refuse(Absence.NOT_UNDERSTOOD, "an event of the streamed reply is not JSON")
            # An error may follow that says why. Behind the last empty line nothing was told yet.
            broken |= ended
            continue
        if not isinstance(value, dict):
            refuse(Absence.NOT_UNDERSTOOD, "an event of the streamed reply is not a JSON object")
        if _is_error(name, value):
            _failed(value)
        found.append((name, value))
    return Stream(tuple(found), False) if not broken else _broken()


def _broken() -> NoReturn:
    refuse(Absence.INCOMPLETE, "an event of the streamed reply was cut")


def _events(text: str) -> Iterator[tuple[str, str, bool]]:
    """The name and the data of each event with data; and false for one that no empty line ends."""
    name, data = "", list[str]()
    for line in _LINE_END.split(text):
        if not line:
            if data:
                yield name, "\n".join(data), True
            name, data = "", []
            continue
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if field == "data":
            data.append(value)
        elif field == "event":
            name = value
    if data:
        yield name, "\n".join(data), False


def _begins(text: str) -> bool:
    """Return whether the text is the beginning of JSON, or of a mark of the end."""
    if _DONE.startswith(text.strip()):
        return True
    try:
        from_json(text, allow_partial="trailing-strings")
    except ValueError:
        return False
    return True


def _is_error(name: str, value: Body) -> bool:
    """Return whether an object says that the reply failed, as all faces have it."""
    return (bool(value.get("error")) and value.get("object") != "response") or "error" in (name, value.get("type"))


def _failed(value: Body) -> NoReturn:
    error = value.get("error")
    told = error if isinstance(error, dict) else value
    kind = told.get("code") or told.get("type")
    refuse(Absence.FAILED, f"the reply is an error{f' ({kind:.60})' if isinstance(kind, str) else ''}")
