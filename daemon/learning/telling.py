"""Tells others what the learner is at, by its file in the home (`daemon/registry/learner_status.py`)."""

import asyncio
import time
from datetime import UTC, datetime
from pathlib import Path

import structlog

from daemon.learning.loop import Note, Phase
from daemon.registry.learner_status import LEARNER_FILE, LearnerPhase, LearnerStatus
from streams.runtime.files import write_atomically

log = structlog.get_logger()

BEAT_S = 5.0
_PHASES = {
    Phase.TRAINING: LearnerPhase.TRAINING,
    Phase.GATE: LearnerPhase.GATE,
    Phase.OUT_OF_DOMAIN: LearnerPhase.OUT_OF_DOMAIN,
}


class Telling:
    """The account of the learner: a new phase is written at once, what changes within it with the next beat."""

    def __init__(self, home: Path) -> None:
        self._path = home / LEARNER_FILE
        self._warned = False
        self._first: tuple[float, int] | None = None
        now = datetime.now(UTC)
        self._status = LearnerStatus(phase=LearnerPhase.STARTING, since=now, beat_at=now)

    @property
    def status(self) -> LearnerStatus:
        """The status that was told last."""
        return self._status

    def tell(self, phase: LearnerPhase, **fields: object) -> None:
        """Say that the learner is in `phase`, with the other fields of its status; what is not named is empty again."""
        old, now = self._status, datetime.now(UTC)
        is_new = phase is not old.phase or fields.get("gate", "") != old.gate
        if is_new:
            self._first = None
        since = now if is_new else old.since
        given = {"phase": phase, "since": since, "beat_at": now, **fields}
        self._status = LearnerStatus.model_validate(given)
        if is_new:
            self._write()

    def advanced(self, phase: Phase, done: int, total: int, note: Note, failures: int = 0) -> None:
        """Say how far a phase of a cycle is."""
        left, at = None, time.monotonic()
        # From the first update on: before it the model is loaded.
        if phase is Phase.TRAINING and self._first is not None and done > self._first[1]:
            left = round((at - self._first[0]) * (total - done) / (done - self._first[1]))
        self.tell(
            _PHASES[phase],
            done=done,
            total=total,
            left_s=left,
            objective=note.objective,
            loss=note.loss,
            losses=note.losses,
            memory_bytes=note.memory_bytes,
            tokens_per_s=note.tokens_per_s,
            gradient_norm=note.gradient_norm,
            gate=note.gate,
            failures=failures,
        )
        self._first = self._first or (at, done)

    def beat(self) -> None:
        """Say that the learner lives."""
        self._status = self._status.model_copy(update={"beat_at": datetime.now(UTC)})
        self._write()

    async def keep_beating(self) -> None:
        """Beat until cancelled."""
        while True:
            self.beat()
            await asyncio.sleep(BEAT_S)

    def _write(self) -> None:
        try:
            write_atomically(self._path, self._status.model_dump_json().encode())
            self._warned = False
        except OSError as error:
            # Learning goes on: only `ratchet status` does not see it.
            if not self._warned:
                log.warning("the learner's status cannot be written", path=str(self._path), reason=str(error))
            self._warned = True
