"""The envelope of an OTLP request, apart from its spans and log records: what is wrong with one of them is its own.

A parser of whole requests refuses all of a request for one bad character. So the envelope is taken off first, in
protobuf by message types of the same fields whose contents are bytes, in JSON by hand.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from json import JSONDecodeError, loads
from typing import Any, TypeAlias

from google.protobuf.descriptor_pb2 import DescriptorProto, FieldDescriptorProto, FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import DecodeError
from google.protobuf.message_factory import GetMessageClass
from pydantic import JsonValue

from streams.errors import UnreadableRequestError

Part: TypeAlias = bytes | JsonValue
"""A resource, a scope, a span or a log record: its protobuf bytes, or its JSON."""

# Far more than a value may be nested, and less than Python's parser takes.
_MAX_JSON_DEPTH = 300
# A larger number is no field's; Python would refuse the whole text for one of several thousand digits.
_MAX_DIGITS = 40
_HALF_PAIR = re.compile(r"\\u[dD][89a-fA-F]")
# Escapes in turn, so that a backslash that was escaped itself begins none. The first group are those that are right.
_ESCAPE = re.compile(
    r'(\\["\\/bfnrt]|\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|\\u(?![dD][89a-fA-F])[0-9a-fA-F]{4})'
    r"|\\u[dD][89a-fA-F][0-9a-fA-F]{2}|\\"
)
_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[\[{]|[\]}]', re.DOTALL)


@dataclass(frozen=True, slots=True)
class Scoped:
    """The spans or logs that one scope of one resource sent. An item that has not even the form of one is None."""

    resource: Part
    scope: Part
    items: tuple[Part, ...]


def open_protobuf(body: bytes) -> Iterator[Scoped]:
    """The content of a request for traces or logs: both have the same fields. Raises `UnreadableRequestError`."""
    try:
        request = _Request.FromString(body)
    except DecodeError as error:
        raise UnreadableRequestError(f"the body is not an OTLP request in protobuf: {error}") from error
    for group in request.groups:
        for scoped in group.scopes:
            yield Scoped(group.resource, scoped.scope, tuple(scoped.items))


def open_json(body: bytes, group_name: str, scope_name: str, item_name: str) -> Iterator[Scoped]:
    """The content of a request, by the names that its signal gives the lists in it. Raises `UnreadableRequestError`."""
    content = _parse(body.decode("utf-8-sig", errors="replace"))
    if not isinstance(content, dict):
        raise UnreadableRequestError("the body is not a JSON object")
    for group in _list(content, group_name):
        if not isinstance(group, dict):
            yield Scoped(None, None, (None,))
            continue
        for scoped in _list(group, scope_name):
            if isinstance(scoped, dict):
                yield Scoped(group.get("resource"), scoped.get("scope"), tuple(_list(scoped, item_name)))
            else:
                yield Scoped(None, None, (None,))


def member(value: Mapping[str, JsonValue], name: str) -> JsonValue:
    """The member `name`, in camel case or, as protobuf's own JSON may have it, in snake case."""
    return value[name] if name in value else value.get(_in_snake_case(name))


@cache
def _in_snake_case(name: str) -> str:
    return re.sub("[A-Z]", lambda found: f"_{found[0].lower()}", name)


def _list(value: Mapping[str, JsonValue], name: str) -> list[JsonValue]:
    found = member(value, name)
    return found if isinstance(found, list) else [] if found is None else [None]


def _parse(text: str) -> JsonValue:
    """The value of a JSON text in which halves of surrogate pairs, and escapes that JSON lacks, are replaced."""
    if _HALF_PAIR.search(text):
        text = _with_whole_escapes(text)
    reason: Exception
    while True:
        try:
            return _value(text)
        except RecursionError as error:
            reason, mended = error, _less_deep(text)
        except JSONDecodeError as error:
            reason, mended = error, _with_whole_escapes(text)
        if mended == text:
            raise UnreadableRequestError(f"the body is not JSON: {reason}; send what the exporter made") from reason
        text = mended


def _value(text: str) -> JsonValue:
    value: JsonValue = loads(text, strict=False, parse_int=_number)
    return value


def _number(digits: str) -> int | str:
    return int(digits) if len(digits) <= _MAX_DIGITS else digits


def _with_whole_escapes(text: str) -> str:
    return _ESCAPE.sub(lambda found: found[1] or r"\ufffd", text)


def _less_deep(text: str) -> str:
    """The text with `null` for what is nested too deep."""
    pieces: list[str] = []
    depth, copied = 0, 0
    for found in _TOKEN.finditer(text):
        token = found[0]
        if token in "[{":
            depth += 1
            if depth == _MAX_JSON_DEPTH:
                pieces += (text[copied : found.start()], "null")
        elif token in "]}":
            if depth == _MAX_JSON_DEPTH:
                copied = found.end()
            depth -= 1
    return "".join((*pieces, text[copied:]))


def _message_type(name: str, *fields: tuple[str, int, bool, str]) -> DescriptorProto:
    """A message type; each field has a name, a number, may be repeated, and holds messages of a type or bytes."""
    return DescriptorProto(
        name=name,
        field=[
            FieldDescriptorProto(
                name=field,
                number=number,
                label=FieldDescriptorProto.LABEL_REPEATED if repeated else FieldDescriptorProto.LABEL_OPTIONAL,
                type=FieldDescriptorProto.TYPE_MESSAGE if kind else FieldDescriptorProto.TYPE_BYTES,
                type_name=f".ratchet.envelope.{kind}" if kind else None,
            )
            for field, number, repeated, kind in fields
        ],
    )


def _request_class() -> Any:
    types = [
        _message_type("Request", ("groups", 1, True, "Group")),
        _message_type("Group", ("resource", 1, False, ""), ("scopes", 2, True, "Scoped")),
        _message_type("Scoped", ("scope", 1, False, ""), ("items", 2, True, "")),
    ]
    file = FileDescriptorProto(name="envelope.proto", package="ratchet.envelope", syntax="proto3", message_type=types)
    pool = DescriptorPool()
    pool.Add(file)
    return GetMessageClass(pool.FindMessageTypeByName("ratchet.envelope.Request"))


_Request = _request_class()
