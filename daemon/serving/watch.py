"""The gateway's report to a canary on each call that passes: whether it failed, and its reply where it is copied."""

import re
import time
from dataclasses import dataclass, field
from typing import Self

from daemon.serving.canary import Canary, CanaryPhase
from daemon.serving.response_ids import ResponseId
from daemon.serving.shadow import Original
from daemon.serving.upstream import Question
from streams.calls.records import Face

# How inference servers tell in a stream that they failed.
_ERROR_EVENT = re.compile(rb'(?m)^(?:event:\s*error\s*$|data:\s*\{\s*"error"\s*:\s*[{"])')


@dataclass(slots=True)
class Watch:
    """The facts of one call: whether it failed, its response's id, and its reply if it is `copied` to the shadow."""

    canary: Canary
    face: Face
    question: Question
    principal: str | None
    candidate: bool
    copied: bool
    _began: float = field(default_factory=time.monotonic)
    _id: ResponseId = field(default_factory=ResponseId)
    _parts: list[bytes] = field(default_factory=list)
    _size: int = 0
    _failed: bool = False

    @classmethod
    def of(
        cls, canary: Canary, face: Face, question: Question, principal: str | None, *, candidate: bool
    ) -> Self | None:
        """The watch of a call that is passed on; None where no candidate answers."""
        if canary.phase is not CanaryPhase.ANSWERING:
            return None
        copied = not candidate and canary.shadow is not None and canary.shadow.wants(face)
        return cls(canary, face, question, principal, candidate, copied)

    def add(self, part: bytes) -> None:
        """A part of the reply."""
        if self.candidate and self.face is Face.RESPONSES and (found := self._id.find(part)) is not None:
            self.canary.follow(self.principal, found)
        if _ERROR_EVENT.search(part):
            self._failed = True
        if self.copied:
            self._parts.append(part)
            self._size += len(part)
            # A copy that finds no room would be dropped anyway.
            if self.canary.shadow is None or self._size > self.canary.shadow.settings.queue_bytes:
                self.copied = False

    def end(self, *, failed: bool) -> None:
        """The call is over; `failed` where the inference server did not answer it, or not to the end."""
        canary, failed = self.canary, failed or self._failed
        if canary.served is None or (self.candidate and self.question.served != canary.served):
            return  # the canary has ended meanwhile
        canary.count(candidate=self.candidate, failed=failed)
        if not self.copied or failed or canary.shadow is None or self.question.body is None:
            return
        seconds = time.monotonic() - self._began
        question, reply = self.question, b"".join(self._parts)
        canary.shadow.offer(
            Original(self.face, question.target, question.headers, question.body or b"", reply, seconds), canary.served
        )
