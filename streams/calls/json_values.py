"""Small readings of JSON values that nobody promised the form of. Pure."""

import json

from pydantic import JsonValue


def compact(value: JsonValue, *, sort_keys: bool = False) -> str:
    """The value as JSON without blanks, its keys in the order in which they came or sorted."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), sort_keys=sort_keys)


def mapping(value: JsonValue) -> dict[str, JsonValue]:
    """The value where it is an object, else an empty one."""
    return value if isinstance(value, dict) else {}


def word(value: JsonValue) -> str:
    """The value where it is a text, else an empty one."""
    return value if isinstance(value, str) else ""
