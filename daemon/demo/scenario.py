"""A scenario of the demo: a domain, an agent and an expert to play it, and the amounts that suit it.

To add one, write a module with a `Scenario` and list it in `SCENARIOS` of `scenarios.py`.
"""

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from daemon.config import DomainSettings, Settings
from daemon.demo.plan import DemoPlan
from daemon.roles import Role
from ratchet_client.errors import ConfigurationError
from ratchet_client.events import Task
from streams.branching.settings import BranchingSettings

REPOSITORY = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True)
class Command:
    """A program to run in the repository's folder, with `variables` beside those of this process."""

    arguments: tuple[str, ...]
    variables: Mapping[str, str] = field(default_factory=dict)


def python(*arguments: str, variables: Mapping[str, str] | None = None) -> Command:
    """A Python program."""
    return Command((sys.executable, *arguments), variables or {})


Players = Callable[[Sequence[Task], Settings], tuple[Command, ...]]
"""The commands, one after the other, that play tasks. The first prints an `AgentSummary` as its last line."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """`agent` plays tasks and `expert` demonstrates them, each in processes of their own.

    `captured` says that the agent publishes no events: the gateway captures its calls, and the assemble role makes
    events of them. `branching` changes the settings of branching. `file` is one that a clone of the repository has.
    """

    name: str
    domain: DomainSettings
    roles: tuple[Role, ...]
    captured: bool
    file: Path
    agent: Players
    expert: Players
    full: Callable[[int], DemoPlan]
    quick: Callable[[int], DemoPlan]
    branching: Callable[[BranchingSettings], BranchingSettings]

    def plan(self, seed: int, *, quick: bool) -> DemoPlan:
        return self.quick(seed) if quick else self.full(seed)

    def check(self) -> None:
        """Raise `ConfigurationError` where the agent is not installed."""
        if not self.file.is_file():
            raise ConfigurationError(
                f"the demo's agent is not at {self.file}: run the demo from a clone of the repository"
            )


def listed(tasks: Sequence[Task]) -> str:
    """The ids of tasks, as an agent takes them."""
    return ",".join(task.task_id for task in tasks)
