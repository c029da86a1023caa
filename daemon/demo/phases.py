"""The phases of a demo: each is told to what takes their time, where somebody asked for that."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from daemon.console import Narrator
from daemon.learning.loop import Note, Phase
from ratchet_client.errors import ConfigurationError

Begin: TypeAlias = Callable[[str], None]
"""Is told the name of a phase that begins."""


def untimed(name: str) -> None:
    """Let a phase begin of which nobody takes the time."""


def phases(home: Path, narrator: Narrator, *, profile: bool) -> AbstractContextManager[Begin]:
    """Take the time of phases where `profile` says so. Raises `ConfigurationError` where what that needs is missing."""
    if not profile:
        return nullcontext(untimed)
    try:
        from daemon.demo.profiling import profiled
    except ImportError as error:
        raise ConfigurationError(
            f"a profile needs {error.name}, which is not installed: pip install 'ratchetd[demo,study]', or leave out "
            "--profile"
        ) from error
    return profiled(home, narrator)


@dataclass(frozen=True, slots=True)
class Watch:
    """Tells the narrator what a cycle tells its watcher; a phase of the cycle is one of the demo."""

    narrator: Narrator
    name: str
    begin: Begin

    def __call__(self, phase: Phase, done: int, total: int, note: Note) -> None:
        step = f"{self.name}: {phase.value}"
        self.begin(step)
        self.narrator.advance(step, done, total, str(note))
