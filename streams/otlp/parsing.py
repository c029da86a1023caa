"""From a part of a request, in either encoding, to the message of OTLP that it is, or to the reason why it is none."""

import base64
import binascii
import math
from collections.abc import Callable, Mapping
from typing import TypeVar

from google.protobuf.json_format import ParseDict, ParseError
from google.protobuf.message import DecodeError, Message
from opentelemetry.proto.common.v1.common_pb2 import InstrumentationScope, KeyValue
from opentelemetry.proto.logs.v1 import logs_pb2
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1 import trace_pb2
from pydantic import JsonValue

from streams.otlp.envelope import Part, member
from streams.otlp.repair import with_whole_strings

_MessageT = TypeVar("_MessageT", bound=Message)
_NAMES: Mapping[type[Message], str] = {trace_pb2.Span: "span", logs_pb2.LogRecord: "log record"}


class Rejected(Exception):
    """One span or log record cannot be used; the others of its request can."""


def parse(kind: type[_MessageT], part: Part) -> _MessageT:
    """A message of OTLP from its protobuf or JSON; text that is not Unicode has U+FFFD in it. Raises `Rejected`."""
    name = _NAMES.get(kind, "part")
    try:
        if isinstance(part, bytes):
            return _from_bytes(kind, part)
        if not isinstance(part, dict):
            raise Rejected(f"a {name} is not a JSON object")
        wanted: dict[str, JsonValue] = {}
        for field, read_field in _FIELDS[kind].items():
            if (found := member(part, field)) is not None:
                wanted[field] = read_field(found)
        message: _MessageT = kind()
        ParseDict(wanted, message, ignore_unknown_fields=True)
        return message
    except (DecodeError, ParseError, ValueError, TypeError, AttributeError, RecursionError) as error:
        # The last four come from protobuf's own JSON parser, for numbers and shapes that it did not expect.
        reason = type(error).__name__  # its message would quote the record
        raise Rejected(f"a {name} has a field that is not of its type or out of range: {reason}") from error


def _from_bytes(kind: type[_MessageT], raw: bytes) -> _MessageT:
    try:
        message: _MessageT = kind.FromString(raw)
    except DecodeError:
        return with_whole_strings(kind, raw)
    return message


def _hex_as_base64(text: JsonValue) -> str:
    """OTLP writes ids in hex where protobuf's JSON has base64."""
    try:
        raw = binascii.unhexlify(text) if isinstance(text, str) else b"?"
    except ValueError:
        raw = b"?"  # has no id's length, so that the record is rejected and the others are not
    return base64.b64encode(raw).decode()


def _with_quoted_floats(value: JsonValue) -> JsonValue:
    """Protobuf's JSON has NaN and the infinities as texts."""
    if isinstance(value, list):
        return [_with_quoted_floats(item) for item in value]
    if isinstance(value, dict):
        return {key: _with_quoted_floats(item) for key, item in value.items()}
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value


def _only_an_error(status: JsonValue) -> JsonValue:
    code = status.get("code") if isinstance(status, dict) else None
    return {"code": _ERROR} if code in (_ERROR, "STATUS_CODE_ERROR") else {}


_ERROR = int(trace_pb2.Status.STATUS_CODE_ERROR)
# The fields that are used, and the way to read them: what is wrong with others does not matter.
_ID: Mapping[str, Callable[[JsonValue], JsonValue]] = dict.fromkeys(("traceId", "spanId"), _hex_as_base64)
_VALUE = _with_quoted_floats
_FIELDS: Mapping[type[Message], Mapping[str, Callable[[JsonValue], JsonValue]]] = {
    trace_pb2.Span: {
        **_ID,
        "parentSpanId": _hex_as_base64,
        "status": _only_an_error,
        **dict.fromkeys(("name", "startTimeUnixNano", "endTimeUnixNano", "attributes", "events"), _VALUE),
        **dict.fromkeys(("droppedAttributesCount", "droppedEventsCount"), _VALUE),
    },
    logs_pb2.LogRecord: {
        **_ID,
        **dict.fromkeys(("eventName", "timeUnixNano", "observedTimeUnixNano", "attributes", "body"), _VALUE),
    },
    Resource: {"attributes": _VALUE},
    InstrumentationScope: dict.fromkeys(("name", "version"), _VALUE),
    KeyValue: dict.fromkeys(("key", "value"), _VALUE),
}
