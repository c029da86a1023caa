"""The learner's own account of what it is at: a file in the home that it writes, and that the serve role reads.

The file is replaced atomically every few seconds, so that a dead learner shows.
"""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import AwareDatetime, Field, ValidationError

from evaluation.gates.verdict import Verdict
from ratchet_client.settings import FrozenModel

if TYPE_CHECKING:
    from daemon.registry.audit import AuditEntry

LEARNER_FILE = "learner.json"
LEARNER_LOCK = "learn.lock"
"""The file that the one learner of a home has locked."""
LONGEST_SILENCE_S = 60.0
"""A learner that has not written for so long is taken for dead; building a snapshot keeps it from writing."""


class LearnerPhase(StrEnum):
    """The activity of the learner. `OFF` is one without a domain, which learns nothing.

    `FINISHED` is one that ran the one cycle that it was asked for, if one was due, and ended as it should.
    """

    STARTING = "starting"
    OFF = "off"
    WAITING = "waiting"
    PRACTICE = "practising"
    BRANCHES = "waiting_for_branches"
    APPROVAL = "awaiting_approval"
    CANARY = "in_canary"
    TRAINING = "training"
    GATE = "at_a_gate"
    OUT_OF_DOMAIN = "out_of_domain"
    PAUSED = "paused"
    STOPPED = "stopped"
    FINISHED = "finished"


class LearnerStatus(FrozenModel):
    """The phase of the learner, since when, and what belongs to it; `beat_at` is when it was written."""

    phase: LearnerPhase
    since: AwareDatetime
    beat_at: AwareDatetime
    new: int | None = Field(default=None, description="Trusted episodes of train tasks that no adapter has seen.")
    needed: int = Field(default=0, description="How many of them start a cycle.")
    missing: int = Field(default=0, description="States and failed episodes that are not branched yet.")
    until: AwareDatetime | None = Field(default=None, description="When the wait ends at the latest.")
    done: int = Field(default=0, description="Updates of the training, or episodes that the gate has played.")
    total: int = Field(default=0, description="At most so many there will be.")
    left_s: int | None = Field(default=None, description="Estimate of the seconds until the end of the training.")
    objective: str = ""
    loss: float | None = Field(default=None, description="In nats per counted token.")
    losses: dict[str, float] = Field(default={}, description="Of each objective of a joint update, unweighted.")
    memory_bytes: int = Field(default=0, description="The most memory that the training process has had.")
    tokens_per_s: float = Field(default=0.0, description="Of the last update, reading and learning.")
    gradient_norm: float | None = Field(default=None, description="Of the last update, before it was clipped.")
    gate: str = ""
    failures: int = Field(default=0, description="Cycles in a row that failed before an adapter came of them.")
    error: str = ""


class LastCycle(FrozenModel):
    """The verdict of the cycle that ended last, and when."""

    at: AwareDatetime
    adapter: str
    verdict: Verdict
    reason: str


class LearnerReport(FrozenModel):
    """The learner as `ratchet status` shows it. `status` is the last that it wrote; None where none has run."""

    running: bool
    status: LearnerStatus | None = None
    last_cycle: LastCycle | None = None

    @property
    def is_finished(self) -> bool:
        """Whether the last one that ran was asked for one cycle, and ended as it should."""
        return self.status is not None and self.status.phase is LearnerPhase.FINISHED


def learner_report(home: Path, entries: Sequence["AuditEntry"]) -> LearnerReport:
    """The report on the learner of `home`, whose audit log has `entries`."""
    status = read_learner_status(home)
    silent = None if status is None else datetime.now(UTC) - status.beat_at
    return LearnerReport(
        running=status is not None
        and status.phase not in (LearnerPhase.STOPPED, LearnerPhase.FINISHED)
        and silent is not None
        and silent < timedelta(seconds=LONGEST_SILENCE_S),
        status=status,
        last_cycle=last_cycle(entries),
    )


def last_cycle(entries: Sequence["AuditEntry"]) -> LastCycle | None:
    """The cycle that ended last by an audit log of these `entries`; None where none did."""
    last = next((entry for entry in reversed(entries) if entry.cycle is not None), None)
    if last is None or last.cycle is None:
        return None
    return LastCycle(at=last.at, adapter=last.subject, verdict=last.cycle.verdict, reason=last.cycle.reason)


def read_learner_status(home: Path) -> LearnerStatus | None:
    """The status that the learner of `home` wrote last; None where there is nothing, or nothing that can be read."""
    try:
        return LearnerStatus.model_validate_json((home / LEARNER_FILE).read_bytes())
    except (ValidationError, OSError):
        return None
