"""Tool calls in the text that a model generates: JSON objects, in the words that the model puts around them.

`reply_format.py` finds the syntax in the chat template and reads replies by it.
"""

import json
import re
from dataclasses import dataclass
from functools import cache
from typing import NoReturn

from pydantic_core import from_json

from ratchet_client.messages import ToolCall, call

SPACE = " \n\r\t"


@dataclass(frozen=True, slots=True)
class CallSyntax:
    """Syntax of a model's calls: `begin`, a JSON object, as often as it likes `between` and another object, `end`.

    The object has the tool's name under `name_key` and its arguments, an object, under `arguments_key`; no other key
    than `keys`. `separator` is what follows a content before `begin`. `between` is None where the template writes a
    single call only.
    """

    begin: str
    end: str
    between: str | None
    separator: str
    name_key: str
    arguments_key: str
    keys: frozenset[str]

    def read(self, text: str, start: int, *, cut: bool = False) -> tuple[ToolCall, ...] | None:
        """The calls that `text` from `start` to its end consists of, None where it is anything else.

        Of a text that was `cut`, the calls that are complete: what follows them may be the begin of another or of the
        end.
        """
        found: list[ToolCall] = []
        opening = _spaced(self.begin).match(text, start)
        while opening is not None:
            read = self._object(text, opening.end(), f"call_{len(found)}")
            if read is None:
                return tuple(found) if cut and self._begins_object(text[opening.end() :]) else None
            found.append(read[0])
            rest = text[read[1] :]
            if _spaced(self.end).fullmatch(rest):
                return tuple(found)
            if cut and any(_begins(rest, mark) for mark in (self.end, self.between or "")):
                return tuple(found)
            opening = None if self.between is None else _spaced(self.between).match(text, read[1])
        return None

    def _begins_object(self, text: str) -> bool:
        """Return whether more text could make a call's JSON object of `text`, which is none yet."""
        if not text:
            return True
        try:
            begun = from_json(text, allow_inf_nan=False, allow_partial="trailing-strings")
        except ValueError:
            return False
        return (
            isinstance(begun, dict)
            and begun.keys() <= self.keys
            and isinstance(begun.get(self.name_key, ""), str)
            and isinstance(begun.get(self.arguments_key, {}), dict)
            and not _is_whole(text)
        )

    def _object(self, text: str, start: int, identity: str) -> tuple[ToolCall, int] | None:
        """The call that the JSON object at `start` is, and where it ends."""
        try:
            members, end = members_of(text, start)
            if not {self.name_key, self.arguments_key} <= members.keys() <= self.keys:
                return None
            name, given = json.loads(members[self.name_key]), members[self.arguments_key]
            own = json.loads(members["id"]) if "id" in members else identity
            if not (isinstance(name, str) and name and isinstance(own, str) and given.startswith("{")):
                return None
            f"{name}{own}".encode()  # not for half a surrogate pair
        except (ValueError, RecursionError):
            return None
        return call(name, given, own), end


def members_of(text: str, start: int) -> tuple[dict[str, str], int]:
    """The members of the JSON object at `start`, their values as they are written, and where it ends.

    Raises `ValueError` where there is none, and `RecursionError` where it is nested too deeply.
    """
    if not text.startswith("{", start):
        raise ValueError("not an object")
    _, stop = _DECODER.raw_decode(text, start)
    members: dict[str, str] = {}
    at = start + 1
    while True:
        at = _after_space(text, at)
        if text[at] == "}":
            return members, stop
        if text[at] == ",":
            at = _after_space(text, at + 1)
        key, at = _DECODER.raw_decode(text, at)
        begin = _after_space(text, _after_space(text, at) + 1)
        _, at = _DECODER.raw_decode(text, begin)
        members[str(key)] = text[begin:at]


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")


_DECODER = json.JSONDecoder(parse_constant=_refuse)


def _after_space(text: str, at: int) -> int:
    while text[at : at + 1] and text[at] in SPACE:
        at += 1
    return at


@cache
def _spaced(text: str) -> re.Pattern[str]:
    """A pattern for `text` with any white space, or none, where it has some, before it and behind it."""
    return re.compile(r"\s*".join(["", *(re.escape(word) for word in text.split()), ""]))


def _is_whole(text: str) -> bool:
    """Return whether `text` begins with a whole JSON value."""
    try:
        _DECODER.raw_decode(text)
    except (ValueError, RecursionError):
        return False
    return True


def _begins(text: str, mark: str) -> bool:
    """Return whether `text` is the begin of `mark`, whatever the white space."""
    return "".join(mark.split()).startswith("".join(text.split()))
