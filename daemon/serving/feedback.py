"""`POST /v1/feedback`: verdicts on calls and episodes, from evaluators and from a browser's thumbs alike.

It is answered only when the log has it, since feedback that is lost cannot be asked for again.
"""

import asyncio
import time
from collections import Counter as Tally
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Self

import structlog
from pydantic import ValidationError, model_validator
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope

from daemon.serving.access import principal_of
from daemon.serving.capture import Publishes
from daemon.serving.headers import find, own
from daemon.serving.refusals import Refused
from daemon.serving.reply import Reply
from daemon.serving.requests import read_body, read_object
from daemon.serving.settings import ServingSettings
from ratchet_client.errors import BrokerError
from ratchet_client.feedback_request import FeedbackRequest, fault_of
from ratchet_client.headers import PREFIX
from streams.calls.labels import episode_key
from streams.calls.records import Feedback, key_of_receipt
from streams.kafka.records import Outgoing

log = structlog.get_logger()

PATH = "/v1/feedback"
_MOST_BYTES = 256 * 1024
_THREADS = 4
_MOST_IN_FLIGHT = 64
_CORS_MAX_AGE_S = 600


class PostedFeedback(FeedbackRequest):
    """The body of a request, as this gateway takes it."""

    @model_validator(mode="after")
    def _has_a_receipt_of_ours(self) -> Self:
        if self.receipt is not None and key_of_receipt(self.receipt) is None:
            raise ValueError("the receipt is not one of this gateway: send the header x-ratchet-receipt of the reply")
        return self

    def verdict(self, success_score: float) -> tuple[bool, float]:
        """Return whether it is a success, and its score. Raises `Refused` where its parts contradict each other."""
        rated = None if self.rating is None else self.rating == "up"
        scored = None if self.score is None else self.score >= success_score
        success = next(each for each in (self.success, rated, scored) if each is not None)
        if rated is not None and rated != success:
            raise _contradictory(f"success is {success} and the rating {self.rating}")
        if self.score is None:
            return success, float(success)
        # A failure may have earned part of the score, but not all; a success cannot have less than makes one.
        if (success and not scored) or (not success and self.score >= max(1.0, success_score)):
            raise _contradictory(f"success is {success} and the score {self.score}")
        return success, self.score


def _contradictory(parts: str) -> Refused:
    return Refused(422, f"the feedback contradicts itself: {parts}; correct it", "contradictory_feedback")


class FeedbackIntake:
    """Takes feedback and puts it on the topic of calls. Call `close` at the end."""

    def __init__(self, settings: ServingSettings, topic: str, log_: Publishes) -> None:
        self._settings = settings
        self._topic = topic
        self._log = log_
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="feedback")
        self._in_flight = 0
        self.results: Tally[str] = Tally()

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)

    def with_cors(self, app: ASGIApp) -> ASGIApp:
        """The route `app`, which pages of the settings' origins may use."""
        origins = self._settings.cors_origins
        if not origins:
            return app
        return CORSMiddleware(
            app,
            allow_origins=origins,
            allow_methods=("POST",),
            allow_headers=("authorization", "content-type", "x-api-key", "x-ratchet-principal"),
            expose_headers=("x-request-id", "retry-after"),
            max_age=_CORS_MAX_AGE_S,
        )

    async def answer(self, scope: Scope, receive: Receive, reply: Reply) -> None:
        """Answer with 202 and the feedback's id when the log has it. Raises `Refused`."""
        try:
            taken = await self._take(scope, receive)
        except Refused:
            self.results["refused"] += 1
            raise
        self.results["published"] += 1
        answer = taken.model_dump(include={"feedback_id", "success", "score"}) | {"object": "feedback"}
        await JSONResponse(answer, 202)(scope, receive, reply)

    async def _take(self, scope: Scope, receive: Receive) -> Feedback:
        headers = scope["headers"]
        principal = principal_of(scope)
        if (find(headers, b"content-type") or "").partition(";")[0].strip().lower() != "application/json":
            # Any page may have a browser post other types without asking first.
            raise Refused(415, "send feedback as application/json")
        if self._in_flight >= _MOST_IN_FLIGHT:
            raise Refused(429, "too much feedback is in flight: try again soon")
        self._in_flight += 1
        try:
            body = await read_body(receive, find(headers, b"content-encoding") or "", _MOST_BYTES)
            feedback = self._read(read_object(body), own(headers), principal)
            key = key_of_receipt(feedback.receipt) if feedback.receipt else None
            key = key or episode_key(principal, feedback.episode or "")
            message = Outgoing(self._topic, key.encode(), feedback.to_json())
            await asyncio.get_running_loop().run_in_executor(self._threads, self._log.publish, [message])
        except BrokerError as error:
            log.warning("feedback could not be published", error=str(error))
            raise Refused(503, "the log is away and the feedback not stored: send it again soon") from error
        finally:
            self._in_flight -= 1
        return feedback

    def _read(self, body: dict[str, Any], headers: Mapping[str, str], principal: str | None) -> Feedback:
        try:
            posted = PostedFeedback.model_validate(body)
        except ValidationError as error:
            faults = "; ".join(fault_of(each) for each in error.errors()[:20])
            raise Refused(422, f"the feedback cannot be read: {faults}", "invalid_feedback") from error
        success, score = posted.verdict(self._settings.success_score)
        said = {"comment": posted.comment, "rating": posted.rating}
        return Feedback(
            feedback_id=posted.feedback_id,
            receipt=posted.receipt,
            episode=posted.episode,
            principal=principal or posted.principal or headers.get(f"{PREFIX}principal", "").strip()[:512] or None,
            authenticated=principal is not None,
            verifier=posted.verifier,
            success=success,
            score=score,
            evidence=posted.evidence | {name: text for name, text in said.items() if text is not None},
            given_ns=time.time_ns(),
        )
