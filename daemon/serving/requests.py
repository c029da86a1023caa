"""Reading a request of an agent: its body without compression, its model, and the body that is passed on."""

import json
import re
import zlib
from typing import Any

from starlette.requests import ClientDisconnect
from starlette.types import Receive

from daemon.serving.refusals import Refused
from streams.runtime.http_bodies import WINDOW_BITS, inflated, read_json

TOO_LARGE = "request_too_large"
# In valid JSON a quote that no backslash stands before begins or ends a text, so this is a key or a text of its own.
_MODEL = re.compile(r'(?<!\\)"model"\s*:\s*("(?:[^"\\]|\\.)*")')
_ESCAPED_KEY = re.compile(r"\\u00(?:6[4-5cdfCDF])")
_SPACE = re.compile(r"\s*")
_PLAIN = json.JSONDecoder()


async def read_body(receive: Receive, encoding: str, limit: int) -> bytes:
    """The body, decompressed. Raises `Refused`, and `ClientDisconnect` when the client leaves before its end."""
    message = await receive()
    parts, size = [], 0
    while True:
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        part = message.get("body", b"")
        size += len(part)
        if size > limit:
            raise Refused(413, f"the request is larger than {limit} bytes; send a smaller one", TOO_LARGE)
        parts.append(part)
        if not message.get("more_body", False):
            break
        message = await receive()
    body = parts[0] if len(parts) == 1 else b"".join(parts)
    return _decompressed(body, encoding.strip().lower(), limit)


def read_object(body: bytes) -> dict[str, Any]:
    """The JSON object in `body`. Raises `Refused` for any other, `RequestRefusedError` for a body that is not JSON."""
    found = read_json(body)
    if not isinstance(found, dict):
        raise Refused(400, "the request's body is not a JSON object; send one")
    return found


def with_model(body: bytes, model: str) -> bytes:
    """The body with another model, and all else as it came. `body` must be a JSON object that names a model.

    >>> with_model(b'{"x": 1.0, "model" : "assistant", "tools": [{"model": "b"}]}', "ratchet-1")
    b'{"x": 1.0, "model" : "ratchet-1", "tools": [{"model": "b"}]}'
    """
    text = body.decode("utf-8-sig")
    found = [match.span(1) for match in _MODEL.finditer(text)]
    # A second one, or a key that is written with escapes, may be that of an inner object.
    begin, end = found[0] if len(found) == 1 and not _ESCAPED_KEY.search(text) else _top_level_model(text)
    return f"{text[:begin]}{json.dumps(model)}{text[end:]}".encode()


def _top_level_model(text: str) -> tuple[int, int]:
    """Return where the value of the object's own key `model` begins and ends."""
    place = _after_space(text, 0) + 1
    while True:
        key, place = _PLAIN.raw_decode(text, _after_space(text, place))
        begin = _after_space(text, _after_space(text, place) + 1)
        _, end = _PLAIN.raw_decode(text, begin)
        if key == "model":
            return begin, end
        place = _after_space(text, end) + 1


def _after_space(text: str, place: int) -> int:
    match = _SPACE.match(text, place)
    return match.end() if match else place


def _decompressed(body: bytes, encoding: str, limit: int) -> bytes:
    if encoding in ("", "identity"):
        return body
    if encoding not in WINDOW_BITS:
        raise Refused(415, f"the content encoding {encoding!r:.40} is not supported: send gzip, deflate or none")
    try:
        found = inflated(body, encoding, limit)
    except zlib.error as error:
        raise Refused(400, f"the request's body is not {encoding}: {error}; compress it again") from error
    except EOFError as error:
        raise Refused(400, f"the request's {encoding} data ends too early; send all of it") from error
    if found is None:
        raise Refused(413, f"the request is larger than {limit} bytes decompressed; send a smaller one", TOO_LARGE)
    return found
