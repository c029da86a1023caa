"""Feedback over a real gateway and over servers that fail: what is taken, what is told, and that nothing is raised."""

import json
import logging
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any, ClassVar

import pytest

from ratchet_client.errors import FeedbackError
from ratchet_client.feedback import send_feedback
from streams.calls.records import Feedback, new_receipt
from streams.runtime.http_errors import error_reply
from tests.recorded import recorded_gateway

RECEIPT = new_receipt("0123456789abcdef")
TAKEN: tuple[int, dict[str, str], bytes] = (202, {}, b"")
AWAY: tuple[int, dict[str, str], bytes] = (
    503,
    {"retry-after": "0"},
    error_reply(503, "the log is away").model_dump_json().encode(),
)


class Gateway(BaseHTTPRequestHandler):
    """Answers in turn with status, headers and body; without a body as the gateway answers what it takes."""

    answers: ClassVar[list[tuple[int, dict[str, str], bytes]]]
    requests: ClassVar[list[tuple[str, dict[str, str], dict[str, Any]]]]

    def do_POST(self) -> None:
        said = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.requests.append((self.path, {name.lower(): value for name, value in self.headers.items()}, said))
        status, headers, body = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        body = body or json.dumps({"feedback_id": said["feedback_id"], "success": True, "score": 1.0}).encode()
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Tests are quiet."""


@contextmanager
def answering(*answers: tuple[int, dict[str, str], bytes]) -> Iterator[tuple[str, type[Gateway]]]:
    handler = type("Handler", (Gateway,), {"answers": list(answers), "requests": []})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/v1", handler
        server.shutdown()


def test_the_gateway_takes_every_part_of_a_verdict() -> None:
    with recorded_gateway("http://127.0.0.1:1") as gateway:
        result = send_feedback(
            f"{gateway.address}/v1",
            receipt=RECEIPT,
            success=False,
            score=0.25,
            rating="down",
            verifier="shop",
            evidence={"refunds": 2, "names": ["Küche"]},
            comment="The wrong order.",
            principal="tenant/user",
            feedback_id="f-1",
        )
        (record,) = gateway.records()
    assert result.raise_for_error().taken
    assert (result.feedback_id, result.success, result.score) == ("f-1", False, 0.25)
    assert isinstance(record, Feedback)
    assert (record.receipt, record.success, record.score, record.verifier) == (RECEIPT, False, 0.25, "shop")
    assert record.evidence == {"refunds": 2, "names": ["Küche"], "comment": "The wrong order.", "rating": "down"}
    assert record.principal == "tenant/user"


def test_the_gateways_own_words_say_why_it_refused() -> None:
    with recorded_gateway("http://127.0.0.1:1") as gateway:
        unknown = send_feedback(gateway.address, receipt="mine", success=True)
        contradictory = send_feedback(gateway.address, episode="e", success=True, rating="down")
    assert "the receipt is not one of this gateway: send the header x-ratchet-receipt" in str(unknown.error)
    assert "refused with 422: the feedback contradicts itself" in str(contradictory.error)
    for result in (unknown, contradictory):
        assert not result.taken
        with pytest.raises(FeedbackError) as raised:
            result.raise_for_error()
        assert (raised.value.status, raised.value.refused) == (422, True)


@pytest.mark.parametrize("given", ["", "/", "/v1", "/v1/"])
def test_the_address_is_the_one_that_the_agents_client_has(given: str) -> None:
    with answering(TAKEN) as (url, gateway):
        assert send_feedback(url.removesuffix("/v1") + given, episode="e", rating="up", token="secret").taken
    ((path, headers, said),) = gateway.requests
    assert (path, headers["authorization"]) == ("/v1/feedback", "Bearer secret")
    assert said == {"episode": "e", "rating": "up", "verifier": "feedback", "evidence": {}} | {
        "feedback_id": said["feedback_id"]
    }


def test_a_gateway_that_is_away_is_asked_again_with_the_same_id() -> None:
    with answering(AWAY, AWAY, TAKEN) as (url, gateway):
        assert send_feedback(url, episode="e", success=True).taken
    assert len(gateway.requests) == 3
    assert len({said["feedback_id"] for _, _, said in gateway.requests}) == 1


def test_a_gateway_that_stays_away_is_asked_as_often_as_was_said() -> None:
    with answering(AWAY) as (url, gateway):
        result = send_feedback(url, episode="e", success=True, attempts=2)
    assert len(gateway.requests) == 2
    assert "refused with 503: the log is away" in str(result.error)


@pytest.mark.parametrize("status", [400, 401, 404, 413, 422, 500])
def test_what_will_not_pass_is_not_repeated(status: int) -> None:
    body = error_reply(status, "it cannot be").model_dump_json().encode()
    with answering((status, {}, body)) as (url, gateway):
        result = send_feedback(url, episode="e", success=True)
    assert len(gateway.requests) == 1
    assert isinstance(result.error, FeedbackError)
    assert result.error.status == status
    assert f"refused with {status}: it cannot be" in str(result.error)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_refused_and_gets_no_token(status: int) -> None:
    with answering(TAKEN) as (other, elsewhere), answering((status, {"location": other}, b"-")) as (url, gateway):
        result = send_feedback(url, episode="e", success=True, token="secret")
    assert (len(gateway.requests), elsewhere.requests) == (1, [])
    assert f"redirected to '{other}'" in str(result.error)


@pytest.mark.parametrize("body", [b"<html>Welcome</html>", b"[]", b'{"feedback_id": "another"}', b"[" * 60_000])
def test_an_answer_that_is_no_gateways_is_not_taken_for_one(body: bytes) -> None:
    with answering((200, {}, body)) as (url, _):
        result = send_feedback(url, episode="e", success=True)
    assert "answered 200, and not as a gateway does" in str(result.error)


def test_nothing_that_listens_is_an_error_that_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with caplog.at_level(logging.WARNING):
        result = send_feedback(f"http://127.0.0.1:{port}", episode="e", success=True, attempts=1, token="secret")
    assert "did not answer" in str(result.error)
    assert isinstance(result.error, FeedbackError)
    assert (result.error.status, result.error.refused) == (None, False)
    assert "feedback was not taken" in caplog.text
    assert "secret" not in caplog.text


def test_a_server_that_says_nothing_is_given_up() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        result = send_feedback(url, episode="e", success=True, attempts=2, timeout_s=0.1)
    assert "timed out" in str(result.error)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({}, "name either the receipt of a call or an episode"),
        ({"episode": "e"}, "send at least one of success, score and rating"),
        ({"episode": "e", "success": "yes"}, "success: success is true or false"),
        ({"episode": "e", "score": 2}, "score: "),
        ({"episode": "e", "success": True, "evidence": {"object": object()}}, "not valid"),
        ({"episode": "e", "success": True, "token": "secret\r\nx: y"}, "the token is not printable ASCII"),
        ({"episode": "e", "success": True, "token": 17}, "not valid"),
        ({"episode": "e", "success": True, "base_url": "ftp://127.0.0.1"}, "http://"),
        ({"episode": "e", "success": True, "base_url": None}, "not valid"),
        ({"episode": "e", "success": True, "base_url": "http://ann:secret@127.0.0.1"}, "use `token`"),
        ({"episode": "e", "success": True, "timeout_s": -1}, "not valid"),
        ({"episode": "e", "success": True, "timeout_s": 1e300}, "not valid"),
    ],
)
def test_arguments_that_are_wrong_are_told_and_not_raised(wrong: dict[str, Any], words: str) -> None:
    given: dict[str, Any] = {"base_url": "http://127.0.0.1:1", "attempts": 1}
    result = send_feedback(**given | wrong)
    assert words in str(result.error)
    assert "secret" not in str(result.error)
