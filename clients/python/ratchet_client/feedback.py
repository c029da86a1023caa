"""Posts verdicts to the gateway. Agents, evaluators and jobs call it; it needs the standard library and pydantic.

The call waits for the gateway: from a coroutine, use `await asyncio.to_thread(send_feedback, ...)`.
"""

import json
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from http.client import HTTPException, HTTPResponse
from typing import Any, Self
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

from pydantic import ValidationError

from ratchet_client.error_body import error_message
from ratchet_client.errors import FeedbackError
from ratchet_client.feedback_request import FeedbackRequest, Rating, fault_of
from ratchet_client.settings import server_url

_PATH = "/v1/feedback"
_MOST_ANSWER_BYTES = 64 * 2**10
# It is away for now: the same feedback may be taken later.
_PASSING = frozenset({429, 502, 503, 504})
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.5, 2.0

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class FeedbackResult:
    """The gateway's answer: feedback without an `error` is in the log.

    `success` and `score` are those of the verdict as the gateway understood it.
    """

    feedback_id: str = ""
    success: bool | None = None
    score: float | None = None
    error: FeedbackError | None = None

    @property
    def taken(self) -> bool:
        return self.error is None

    def raise_for_error(self) -> Self:
        """Raise the `FeedbackError`, if there is one: for evaluators, which must not go on without their verdict."""
        if self.error is not None:
            raise self.error
        return self


def send_feedback(
    base_url: str,
    *,
    receipt: str | None = None,
    episode: str | None = None,
    success: bool | None = None,
    score: float | None = None,
    rating: Rating | None = None,
    verifier: str = "feedback",
    evidence: Mapping[str, Any] | None = None,
    comment: str | None = None,
    principal: str | None = None,
    feedback_id: str | None = None,
    token: str | None = None,
    timeout_s: float = 5.0,
    attempts: int = 3,
) -> FeedbackResult:
    """Post a verdict on the call of `receipt`, or on `episode`, and return when the gateway has answered.

    `base_url` is the one that the agent's client has, with or without `/v1`. One of `success`, a `score` from 0 to 1
    and a `rating` is enough. `token` is the bearer token of a gateway that wants one.

    Never raises for what the arguments are or what the gateway does: the result has the error, which is also logged as
    a warning. A gateway that is not reached, or answers 429, 502, 503 or 504, is asked again with the same
    `feedback_id`, `attempts` times in all. Each waits for `timeout_s` at most to connect, and for each part of the
    answer; pauses take two seconds at most. Redirects are never followed, so the token goes to `base_url` alone.
    """
    given: dict[str, object] = {
        **{"receipt": receipt, "episode": episode, "principal": principal, "feedback_id": feedback_id},
        **{"success": success, "score": score, "rating": rating, "evidence": evidence, "comment": comment},
    }
    said = {name: value for name, value in given.items() if value is not None}
    identity = ""
    try:
        feedback = FeedbackRequest.model_validate({"verifier": verifier, **said})
        identity = feedback.feedback_id
        return _posted(_request(server_url(base_url) + _PATH, feedback, token), identity, timeout_s, attempts)
    except FeedbackError as error:
        return _failed(identity, error)
    # An agent may hand over anything at all, and must not fail of it.
    except (AttributeError, OverflowError, RecursionError, TypeError, ValueError) as error:
        return _failed(identity, FeedbackError(f"the feedback is not valid: {_without_content(error)}; correct it"))


class _NoRedirects(HTTPRedirectHandler):
    """Leaves a redirect as the answer that it is."""

    def redirect_request(self, *_: object) -> None:
        return None


@dataclass(frozen=True, slots=True)
class _Answer:
    status: int
    body: bytes
    retry_after: str
    location: str

    @classmethod
    def of(cls, response: HTTPResponse | HTTPError) -> Self:
        headers = response.headers
        told = headers.get("retry-after", ""), headers.get("location", "")
        return cls(response.status or 0, response.read(_MOST_ANSWER_BYTES), *told)


class _InvalidError(ValueError):
    """An argument is wrong; the message has nothing of its content."""


def _request(url: str, feedback: FeedbackRequest, token: str | None) -> Request:
    headers = {"content-type": "application/json", "accept": "application/json"}
    if urlsplit(url).username is not None:
        raise _InvalidError("the address has a user's name in it, which is not sent: use `token`")
    if token:
        if not (token.isascii() and token.isprintable()):
            raise _InvalidError("the token is not printable ASCII, which no header can hold")
        headers["authorization"] = f"Bearer {token}"
    return Request(url, feedback.model_dump_json(exclude_none=True).encode(), headers, method="POST")


def _posted(request: Request, feedback_id: str, timeout_s: float, attempts: int) -> FeedbackResult:
    """Raises `FeedbackError`."""
    attempt = 1
    while True:
        pause_s = _FIRST_PAUSE_S * 2 ** (attempt - 1)
        try:
            answer = _ask(request, timeout_s)
        except (OSError, HTTPException) as error:
            failure = FeedbackError(f"{request.full_url} did not answer: {error!r}; is the gateway running?")
        else:
            if answer.status not in _PASSING:
                return _read(answer, request.full_url, feedback_id)
            failure = _refusal(answer, request.full_url)
            pause_s = float(answer.retry_after) if answer.retry_after.isdecimal() else pause_s
        if attempt >= attempts:
            raise failure
        time.sleep(min(pause_s, _LONGEST_PAUSE_S))
        attempt += 1


def _ask(request: Request, timeout_s: float) -> _Answer:
    try:
        with build_opener(_NoRedirects).open(request, timeout=timeout_s) as response:
            return _Answer.of(response)
    except HTTPError as error:
        with error:
            return _Answer.of(error)


def _read(answer: _Answer, url: str, feedback_id: str) -> FeedbackResult:
    """Raises `FeedbackError`."""
    if answer.status >= 300:
        raise _refusal(answer, url)
    try:
        said = json.loads(answer.body)
        if said["feedback_id"] == feedback_id:
            return FeedbackResult(feedback_id, bool(said["success"]), float(said["score"]))
    except (KeyError, RecursionError, TypeError, ValueError):
        pass  # said below
    raise FeedbackError(f"{url} answered {answer.status}, and not as a gateway does; is it Ratchet's?", answer.status)


def _refusal(answer: _Answer, url: str) -> FeedbackError:
    if 300 <= answer.status < 400:
        reason = f"redirected to {answer.location[:200]!r}; name that address if you trust it"
        return FeedbackError(f"{url} {reason}", answer.status)
    remedy = "; give it the token that the gateway wants" if answer.status == HTTPStatus.UNAUTHORIZED else ""
    return FeedbackError(f"{url} refused with {answer.status}: {error_message(answer.body)}{remedy}", answer.status)


def _failed(feedback_id: str, error: FeedbackError) -> FeedbackResult:
    _log.warning("feedback was not taken: %s", error)
    return FeedbackResult(feedback_id, error=error)


def _without_content(error: Exception) -> str:
    if isinstance(error, ValidationError):
        return "; ".join(map(fault_of, error.errors(include_input=False)))
    # A faulty address is no secret, and its error says how to write it.
    return str(error) if type(error) in (ValueError, _InvalidError) else type(error).__name__
