"""The canary at the gateway: which calls the candidate answers, what is seen of both sides, and its phases.

`Promoter` begins and ends it, `gateway.py` asks it for each call, `canary_judge.py` judges it.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

import structlog

from daemon.registry.canaries import RunningCanary
from daemon.registry.schemas import CanaryEnd, CanaryReport, CanaryStart
from daemon.serving.assignment import Assignment, RecentKeys
from daemon.serving.refusals import Refused
from daemon.serving.shadow import Shadow
from evaluation.canary import Errors, error_reason
from evaluation.canary_figures import CanaryFigures
from evaluation.settings import CanarySettings
from streams.calls.beginnings import may_begin
from streams.calls.records import Face, record_key

log = structlog.get_logger()

FOLDER = "canary"
_RECENT_KEYS = 200_000


class CanaryPhase(StrEnum):
    """`LOADING`: the inference server does not have the candidate yet, or lost it; its episodes are asked to wait."""

    OFF = "off"
    LOADING = "loading"
    ANSWERING = "answering"


PHASES: dict[CanaryPhase, frozenset[CanaryPhase]] = {
    CanaryPhase.OFF: frozenset({CanaryPhase.LOADING}),
    CanaryPhase.LOADING: frozenset({CanaryPhase.ANSWERING, CanaryPhase.OFF}),
    CanaryPhase.ANSWERING: frozenset({CanaryPhase.LOADING, CanaryPhase.OFF}),
}
"""The phases that may follow on each. A process starts in `OFF`, whatever the audit log says runs."""


@dataclass(slots=True)
class Canary:
    """The canary of one serve process. Belongs to its event loop.

    `served` is the candidate's name at the inference server while it answers. `failing` is set when the inference
    server fails on the candidate more often than on the champion: it is to be taken back at once.
    """

    settings: CanarySettings
    home: Path
    shadow: Shadow | None = None
    phase: CanaryPhase = CanaryPhase.OFF
    running: RunningCanary | None = None
    served: str | None = None
    figures: CanaryFigures = field(default_factory=CanaryFigures)
    word: str = "nothing is known yet"
    failing: asyncio.Event = field(default_factory=asyncio.Event)
    _recent: RecentKeys = field(default_factory=lambda: RecentKeys(_RECENT_KEYS))
    _assignment: Assignment | None = None
    _errors: dict[bool, Errors] = field(default_factory=dict)

    @property
    def looks(self) -> bool:
        """Whether it must be told of calls."""
        return self.phase is not CanaryPhase.OFF or self.settings.share > 0

    def answering(self, face: Face, body: Mapping[str, Any], key: str) -> str | None:
        """The candidate's name where it answers this call; None where the champion does.

        Raises `Refused` for a call of an episode that the candidate began, while it is being loaded again.
        """
        self._recent.add(key)
        if self._assignment is None:
            return None
        begins = self.phase is CanaryPhase.ANSWERING and may_begin(face, body)
        if not self._assignment.is_candidate(key, begins=begins):
            return None
        if self.served is None:
            raise Refused(503, "the adapter that answers this episode is being loaded again; try again soon")
        return self.served

    def prepare(self, start: CanaryStart) -> None:
        """Write down which episodes began before. Raises `OSError`; nothing has begun then."""
        folder = self.home / FOLDER
        for left in folder.glob("*.episodes"):
            left.unlink(missing_ok=True)
        assignment = Assignment(self._path(start), start.share, start.salt)
        try:
            assignment.leave_to_champion(self._recent.all())
        finally:
            assignment.close()

    def resume(self, running: RunningCanary) -> None:
        """Take up the canary that runs, also one of an earlier process: `LOADING` until `answer`."""
        if self.running is not None and self.running.sequence == running.sequence:
            return
        self.end()
        self._assignment = Assignment(self._path(running.start), running.start.share, running.start.salt)
        self._become(CanaryPhase.LOADING)
        self.running = running
        self._errors = {False: Errors(), True: Errors()}
        self.figures, self.word = CanaryFigures(), "nothing is proved yet"
        if self.shadow is not None:
            self.shadow.clear()

    def answer(self, served: str) -> None:
        """The inference server has the candidate as `served`."""
        self._become(CanaryPhase.ANSWERING)
        self.served = served

    def lose(self) -> None:
        """The inference server does not have the candidate any more."""
        self._become(CanaryPhase.LOADING)
        self.served = None

    def end(self) -> str | None:
        """From now on the champion answers all; the name that the candidate was served under."""
        served, self.served = self.served, None
        assignment, self._assignment = self._assignment, None
        running, self.running = self.running, None
        self.failing.clear()
        if assignment is not None:
            assignment.close()
        if running is not None:
            self._become(CanaryPhase.OFF)
            path = self._path(running.start)
            try:
                path.unlink(missing_ok=True)
            except OSError as error:
                # The next canary removes it.
                log.warning("the episodes of a canary could not be removed", path=str(path), error=str(error))
        return served

    def errors(self, *, candidate: bool) -> Errors:
        """The requests to a side since the canary, or this process, began."""
        return self._errors.get(candidate, Errors())

    def error_reason(self) -> str | None:
        """Why the candidate is to be taken back at once, if it is."""
        return error_reason(self.errors(candidate=False), self.errors(candidate=True), self.settings)

    def count(self, *, candidate: bool, failed: bool) -> None:
        before = self.errors(candidate=candidate)
        self._errors[candidate] = Errors(before.requests + 1, before.errors + failed)
        if candidate and failed and self.error_reason() is not None:
            self.failing.set()

    def follow(self, principal: str | None, response_id: str) -> None:
        """Have the candidate answer what continues a response of its, for which the gateway may know no other key."""
        if self._assignment is not None:
            self._assignment.follow(record_key("conversation", principal or "", response_id))

    def report(self, ended: CanaryEnd | None = None, reason: str = "") -> CanaryReport | None:
        """The canary that runs, as it is now; None where none does."""
        if self.running is None:
            return None
        champion, candidate = self.errors(candidate=False), self.errors(candidate=True)
        return CanaryReport(
            adapter=self.running.adapter,
            champion=self.running.start.champion,
            share=self.running.start.share,
            began=self.running.began,
            ended=ended,
            reason=reason or self.word,
            figures=self.figures,
            champion_requests=champion.requests,
            champion_errors=champion.errors,
            candidate_requests=candidate.requests,
            candidate_errors=candidate.errors,
            shadow=self.shadow.figures if self.shadow is not None and self.shadow.settings.share > 0 else None,
        )

    def _path(self, start: CanaryStart) -> Path:
        return self.home / FOLDER / f"{start.salt}.episodes"

    def _become(self, phase: CanaryPhase) -> None:
        if phase not in PHASES[self.phase]:
            raise ValueError(f"a canary that is {self.phase.value} cannot become {phase.value}")
        self.phase = phase
