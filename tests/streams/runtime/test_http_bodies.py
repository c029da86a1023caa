"""Bodies that are not JSON, or hold what cannot be passed on, are refused with a 400 that says what is wrong."""

import json
import socket
from collections.abc import Iterator

import httpx
import pytest
from fastapi import FastAPI

from ratchet_client.settings import FrozenModel
from streams.errors import RequestRefusedError
from streams.runtime.http_bodies import DEEPEST, read_json
from streams.runtime.http_errors import ErrorReply, answer_errors
from tests.served import served
from tests.waiting import until

# By what is wrong, as the message has it.
NOT_JSON = {
    "empty": [b"", b" \n"],
    "not UTF-8": [
        b'{"a": "\xff"}',
        '{"a": "ü"}'.encode("latin-1"),
        '{"a": 1}'.encode("utf-16"),
        b'{"a": "\xed\xa0\x80"}',
    ],
    "not JSON": [b"{", b"nothing", b'{"a": 1} 2', b"{'a': 1}", b"\x00", b'{"a": 01}'],
    "is not a number": [b'{"a": NaN}', b"[Infinity]", b'{"a": {"b": [-Infinity]}}'],
    "too large": [b'{"a": 1e999}', b"[-1e400]", b'{"a": ' + b"9" * 5000 + b"}"],
    "surrogate": [rb'{"a": "\ud800"}', rb'{"\udfff": 1}', rb'{"a": [{"b": "x\udc00y"}]}', rb'"\ud83d"'],
    "twice": [b'{"a": 1, "a": 1}', b'[{"b": {"c": 1, "d": 2, "c": 3}}]'],
    "deeper": [b"[" * 100_000 + b"]" * 100_000, b"[" * 100_000, b'{"a":' * 200 + b"1" + b"}" * 200],
}
CASES = [(body, words) for words, bodies in NOT_JSON.items() for body in bodies]


@pytest.mark.parametrize(("body", "words"), CASES)
def test_what_is_not_strictly_json_is_refused(body: bytes, words: str) -> None:
    with pytest.raises(RequestRefusedError, match=words) as refused:
        read_json(body)
    assert refused.value.status == 400
    assert len(str(refused.value)) < 300


@pytest.mark.parametrize(
    "body",
    [b"1", b"null", b'"\xf0\x9f\x99\x82"', rb'"\ud83d\ude42"', b'{"a": 1e-999}', b"[1.5, -0.0, 1e308]", b"[]"],
)
def test_other_json_is_read_as_it_is(body: bytes) -> None:
    assert read_json(body) == json.loads(body)


def test_a_body_may_be_as_deep_as_the_limit_and_begin_with_a_byte_order_mark() -> None:
    read_json(b"[" * DEEPEST + b"1" + b"]" * DEEPEST)
    with pytest.raises(RequestRefusedError, match="deeper"):
        read_json(b"[" * (DEEPEST + 1) + b"1" + b"]" * (DEEPEST + 1))
    assert read_json(b'\xef\xbb\xbf{"a": 1}') == {"a": 1}


class _Body(FrozenModel):
    first: int
    second: int
    third: str = ""


@pytest.fixture(scope="module")
def http() -> Iterator[httpx.Client]:
    app = FastAPI()
    answer_errors(app)

    @app.post("/body")
    async def echo(body: _Body) -> _Body:
        return body

    @app.get("/bug")
    async def bug() -> None:
        raise ZeroDivisionError("a bug")

    with served(app) as url, httpx.Client(base_url=url) as client:
        yield client


@pytest.mark.parametrize(("body", "words"), CASES)
def test_an_endpoint_answers_them_with_the_one_body_of_errors(body: bytes, words: str, http: httpx.Client) -> None:
    answer = http.post("/body", content=body, headers={"content-type": "application/json"})
    error = ErrorReply.model_validate_json(answer.content).error
    assert (answer.status_code, error.type, error.code) == (400, "invalid_request_error", "invalid_json")
    assert words in error.message


@pytest.mark.parametrize("body", [b"[]", b"1", b"null", b'"text"', b"true"])
def test_json_that_is_not_an_object_is_a_wrong_field(body: bytes, http: httpx.Client) -> None:
    answer = http.post("/body", content=body, headers={"content-type": "application/json"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (422, "invalid_request")


def test_every_wrong_field_is_named_in_one_answer(http: httpx.Client) -> None:
    answer = http.post("/body", json={"first": "x", "second": "y", "fourth": 1})
    error = ErrorReply.model_validate_json(answer.content).error
    assert error.message.startswith("first, second: Input should be a valid integer")
    assert "fourth: Extra inputs are not permitted" in error.message
    assert error.param == "first"


def test_thousands_of_wrong_fields_make_no_message_of_that_size(http: httpx.Client) -> None:
    answer = http.post("/body", json={f"key{number}": number for number in range(5000)})
    assert answer.status_code == 422
    assert len(answer.content) < 5000


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/bug", 500, "internal_server_error"),
        ("GET", "/body", 405, "method_not_allowed"),
        ("DELETE", "/bug", 405, "method_not_allowed"),
        ("GET", "/%ED%A0%80", 404, "not_found"),
    ],
)
def test_errors_that_no_endpoint_raises_have_that_body_too(
    method: str, path: str, status: int, code: str, http: httpx.Client
) -> None:
    answer = http.request(method, path)
    error = ErrorReply.model_validate_json(answer.content).error
    assert (answer.status_code, error.code) == (status, code)
    assert "Zero" not in error.message


def test_a_client_that_leaves_within_its_body_is_no_error_of_the_server(
    http: httpx.Client, caplog: pytest.LogCaptureFixture
) -> None:
    head = b"POST /body HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n"
    with socket.create_connection((http.base_url.host, http.base_url.port or 0)) as connection:
        connection.sendall(head + b'{"first":')
    # What the server does with a request is logged before it answers the next.
    assert http.get("/bug").status_code == 500
    until(lambda: "ZeroDivisionError" in caplog.text)
    assert "ClientDisconnect" not in caplog.text
