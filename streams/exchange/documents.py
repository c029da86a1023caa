"""JSON documents out of a file, one after the other: a line each, or all of the file as one document or a list.

Lines are read as they are needed, so that a file may be larger than the memory and standard input endless.
"""

import codecs
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from pydantic import JsonValue
from pydantic_core import from_json

from streams.exchange.conversation import JsonObject

# How the first line of a document ends that is written over several lines.
_GOES_ON = (b"{", b"[", b",", b":")


@dataclass(frozen=True, slots=True)
class Document:
    """One document of a file. `content` is None where it could not be read, and `error` says why.

    `place` says where it is, `read` how many bytes of the file are read.
    """

    place: str
    read: int
    content: JsonObject | None
    error: str = ""


def documents(file: BinaryIO) -> Iterator[Document]:
    """The documents of a file. Empty lines are passed over."""
    read = 0
    for number, line in enumerate(file, 1):
        read += len(line)
        text = line.removeprefix(codecs.BOM_UTF8).strip() if number == 1 else line.strip()
        if not text:
            continue
        whole = number == 1 and (text.endswith(_GOES_ON) or text.startswith(b"["))
        if not whole:
            yield _document(text, f"line {number}", read)
            continue
        rest = file.read()
        yield from _of_whole(text + b"\n" + rest, read + len(rest))
        return


def _of_whole(text: bytes, read: int) -> Iterator[Document]:
    """The documents of a file that is one document, or a list of them."""
    try:
        value = _parsed(text)
    except ValueError as error:
        yield Document("line 1", read, None, f"it is not JSON: {error}")
        return
    if isinstance(value, list):
        for number, each in enumerate(value, 1):
            yield _checked(each, f"document {number}", read)
    else:
        yield _checked(value, "line 1", read)


def _document(text: bytes, place: str, read: int) -> Document:
    try:
        return _checked(_parsed(text), place, read)
    except ValueError as error:
        return Document(place, read, None, f"it is not JSON: {error}")


def _checked(value: JsonValue, place: str, read: int) -> Document:
    if isinstance(value, dict):
        return Document(place, read, value)
    return Document(place, read, None, "it is not a JSON object")


def _parsed(text: bytes) -> JsonValue:
    """Raises `ValueError` for what is not JSON, and for what could not be stored: NaN, halves of surrogate pairs."""
    value: JsonValue = from_json(text, allow_inf_nan=False)
    return value
