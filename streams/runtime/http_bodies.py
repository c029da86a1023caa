"""Reading the JSON body of a request, so that what cannot be JSON, stored or passed on is refused before it is used.

Python's own parser takes more than JSON: `NaN`, numbers that overflow, halves of surrogate pairs, the same key twice.
"""

import json
import zlib
from collections import Counter
from collections.abc import Callable, Coroutine
from typing import Any, NoReturn

from fastapi import Request, Response
from fastapi.routing import APIRoute

from streams.errors import RequestRefusedError

DEEPEST = 100
# Of the content encodings that `inflated` reads; "deflate" is zlib's format (RFC 9110).
WINDOW_BITS = {"gzip": 31, "x-gzip": 31, "deflate": 15}


def inflated(body: bytes, encoding: str, limit: int) -> bytes | None:
    """The body without its compression, which `WINDOW_BITS` must have; None if that is more than `limit` bytes.

    Never holds more. Raises `zlib.error` for damaged data, `EOFError` for data that ends too early.

    >>> inflated(zlib.compress(b"text"), "deflate", 4)
    b'text'
    >>> inflated(zlib.compress(b"text"), "deflate", 3)
    """
    found, rest = bytearray(), body
    while rest:  # a gzip file may have several members
        member = zlib.decompressobj(wbits=WINDOW_BITS[encoding])
        found += member.decompress(rest, limit - len(found) + 1)
        if len(found) > limit:
            return None
        if not member.eof:
            raise EOFError
        rest = member.unused_data
    return bytes(found)


def read_json(body: bytes) -> object:
    """The value that `body` holds: UTF-8, at most `DEEPEST` levels of lists and objects, numbers of finite size.

    Raises `RequestRefusedError` with status 400.

    >>> read_json(b'{"n": 1}')
    {'n': 1}
    >>> read_json(b'{"n": 1e999}')
    Traceback (most recent call last):
    ...
    streams.errors.RequestRefusedError: the request's body is not JSON: the number 1e999 is too large; correct it
    """
    if not body.strip():
        _refuse("the request's body is empty; send a JSON object")
    try:
        value = json.loads(
            # A byte-order mark is no part of JSON, but editors write it.
            body.decode("utf-8-sig"),
            parse_float=_finite,
            parse_int=_whole,
            parse_constant=_constant,
            object_pairs_hook=_object,
        )
    except UnicodeDecodeError as error:
        _refuse(f"the request's body is not UTF-8, at its byte {error.start}; send JSON in UTF-8")
    except json.JSONDecodeError as error:
        _refuse(f"the request's body is not JSON: {error}; correct it")
    except RecursionError:
        _refuse(_too_deep())
    _check(value)
    return value


class JsonRoute(APIRoute):
    """A route of FastAPI whose body is read by `read_json`. `answer_errors` makes it the class of an app's routes."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def handle_read(request: Request) -> Response:
            request = _JsonRequest(request.scope, request.receive)
            if self.body_field is not None:
                # Before FastAPI asks for it, since that would replace the error by one of its own.
                await request.json()
            return await handle(request)

        return handle_read


class _JsonRequest(Request):
    async def json(self) -> Any:
        if not hasattr(self, "_value"):
            self._value = read_json(await self.body())
        return self._value


def _finite(text: str) -> float:
    number = float(text)
    if abs(number) == float("inf"):
        _refuse(f"the request's body is not JSON: the number {text[:40]} is too large; correct it")
    return number


def _whole(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        _refuse(f"the request's body is not JSON: a number of {len(text)} digits is too large; correct it")


def _constant(name: str) -> NoReturn:
    _refuse(f"the request's body is not JSON: {name} is not a number; correct it")


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) < len(pairs):
        twice, _ = Counter(key for key, _ in pairs).most_common(1)[0]
        _refuse(f"the key {twice[:40]!r} stands twice in one object of the request's body; send it once")
    return found


def _check(value: object) -> None:
    """Refuse what is nested too deeply, and text that has no UTF-8."""
    level = [value]
    for _ in range(DEEPEST + 1):
        inner: list[object] = []
        for each in level:
            if isinstance(each, dict):
                inner += (*each.keys(), *each.values())
            elif isinstance(each, list):
                inner += each
            elif isinstance(each, str) and not _encodes(each):
                _refuse("the request's body has a text with half of a surrogate pair (\\ud800 to \\udfff); correct it")
        level = inner
    if level:
        _refuse(_too_deep())


def _encodes(text: str) -> bool:
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _too_deep() -> str:
    return f"the request's body is nested deeper than {DEEPEST} levels; send it flatter"


def _refuse(reason: str) -> NoReturn:
    raise RequestRefusedError(400, "invalid_json", reason)
