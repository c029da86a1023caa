"""What a simulator, tool suite or server must offer so that Ratchet can branch and evaluate in it."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol, runtime_checkable

from streams.events import Task


class Restore(StrEnum):
    """How a recorded state is brought back, cheapest first."""

    SNAPSHOT = "snapshot"
    FORK = "fork"
    REPLAY = "replay"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What an environment promises about its states."""

    restore: Restore
    deterministic: bool
    side_effects: bool


@dataclass(frozen=True, slots=True)
class Observation:
    """What came back. `text` is what the policy reads, `score` runs from 0 to 1, `success` is the verdict."""

    text: str
    score: float
    done: bool
    success: bool


@runtime_checkable
class Environment(Protocol):
    """One session of a simulator. Lives in a sandbox process; never in production.

    Adapters register under the entry-point group `ratchet.environments`.
    """

    capabilities: Capabilities

    def reset(self, task: Task) -> Observation:
        """Begin the task from its first state. Raises `SandboxError` for a task that does not exist or is reserved."""
        ...

    def step(self, action: str) -> Observation:
        """Execute one action. An action the environment does not understand is answered, not raised."""
        ...

    def valid_actions(self) -> list[str]:
        """The actions it would understand now, sorted."""
        ...

    def fingerprint(self) -> str:
        """A hash that changes whenever the state does."""
        ...

    def close(self) -> None: ...


@runtime_checkable
class TaskSource(Protocol):
    """What an environment that brings its own tasks offers besides."""

    def task_list(self, game: str, fold: str) -> tuple[Task, ...]:
        """Tasks that differ from their first observation on. Raises `SandboxError` for a reserved fold."""
        ...

    def demonstration(self, task: Task) -> list[str]:
        """Actions that solve `task`."""
        ...
