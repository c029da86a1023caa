"""Repair of protobuf messages whose strings are not UTF-8, which protobuf refuses whole.

They are read by copies of OTLP's message types in which every string is bytes: the two are the same on the wire.
"""

from collections.abc import Iterator
from typing import Any, TypeVar

from google.protobuf.descriptor import FileDescriptor
from google.protobuf.descriptor_pb2 import DescriptorProto, FieldDescriptorProto, FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from opentelemetry.proto.logs.v1 import logs_pb2
from opentelemetry.proto.trace.v1 import trace_pb2

_MessageT = TypeVar("_MessageT", bound=Message)


def with_whole_strings(kind: type[_MessageT], raw: bytes) -> _MessageT:
    """The message that `raw` is, with U+FFFD in the place of what is not UTF-8.

    Raises protobuf's `DecodeError` when something else is wrong with it.
    """
    lenient = GetMessageClass(_POOL.FindMessageTypeByName(kind.DESCRIPTOR.full_name)).FromString(raw)
    _mend(lenient, kind.DESCRIPTOR)
    mended: _MessageT = kind.FromString(lenient.SerializeToString())
    return mended


def _mend(message: Message, strict: Any) -> None:
    for field, value in message.ListFields():
        meant = strict.fields_by_number[field.number]
        many = field.is_repeated
        if meant.message_type is not None:
            for inner in value if many else (value,):
                _mend(inner, meant.message_type)
        elif meant.type == FieldDescriptorProto.TYPE_STRING:
            if many:
                value[:] = [_whole(item) for item in value]
            else:
                setattr(message, field.name, _whole(value))


def _whole(text: bytes) -> bytes:
    return text.decode(errors="replace").encode()


def _pool() -> DescriptorPool:
    pool = DescriptorPool()
    for file in _with_imports([trace_pb2.DESCRIPTOR, logs_pb2.DESCRIPTOR], set()):
        copy = FileDescriptorProto()
        file.CopyToProto(copy)
        for message in copy.message_type:
            _strings_as_bytes(message)
        pool.Add(copy)
    return pool


def _with_imports(files: list[FileDescriptor], seen: set[str]) -> Iterator[FileDescriptor]:
    for file in files:
        if file.name not in seen:
            seen.add(file.name)
            yield from _with_imports(list(file.dependencies), seen)
            yield file


def _strings_as_bytes(message: DescriptorProto) -> None:
    for field in message.field:
        if field.type == FieldDescriptorProto.TYPE_STRING:
            field.type = FieldDescriptorProto.TYPE_BYTES
    for nested in message.nested_type:
        _strings_as_bytes(nested)


_POOL = _pool()
