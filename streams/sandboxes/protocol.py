"""The protocol between a pool and its sandbox processes: JSON lines on the process's standard input and output."""

from dataclasses import dataclass
from typing import Literal, TypeAlias

from pydantic import ConfigDict, Field, JsonValue

from ratchet_client.events import Task
from ratchet_client.messages import Message, Messages, Record
from streams.environments.environment import Capabilities, Observation, Restore
from streams.environments.harness import ChatHarness
from streams.environments.registry import Needs
from streams.sandboxes.isolation.settings import OBSERVATION_BYTES

Operation: TypeAlias = Literal[
    "needs",
    "open",
    "close",
    "describe",
    "replay",
    "step",
    "follow",
    "restore",
    "branch",
    "valid_actions",
    "fingerprint",
    "canonical",
    "demonstration",
    "tasks",
    "generate",
    "unsolvable",
]


class Start(Record):
    """The first line a process reads. `settings` are the environment's own; they may hold secrets, so argv has none.

    Relative paths in them start from `working_folder`.
    """

    environment: str
    settings: dict[str, JsonValue] = Field(default_factory=dict)
    working_folder: str = ""
    step_timeout_s: float = Field(gt=0)
    observation_bytes: int = Field(default=OBSERVATION_BYTES, ge=1)


class Request(Record):
    """One request; `id` comes back in its answer, and nobody who has not read the request can guess it.

    `needs` asks for the network and the paths that the environment needs, before it is opened; it is of no session.
    `replay` resets to `task` and takes all of `actions`. `follow` does so too, compares what comes back with `expected`
    (the messages of the reset, and those of each action), and makes that trajectory the session's reference trajectory.
    `restore` brings back the reference trajectory's state number `step`, by `way` or the cheapest that the environment
    has; `branch` takes each of `actions` from there. `generate` makes the tasks number `first` to `first + count - 1`.
    """

    id: str = ""
    op: Operation
    session: int = 0
    task: Task | None = None
    actions: tuple[Message, ...] = ()
    expected: tuple[Messages, ...] = ()
    step: int = Field(default=0, ge=0)
    way: Restore | None = None
    game: str = ""
    fold: str = ""
    first: int = Field(default=0, ge=0)
    count: int = Field(default=0, ge=0)


class State(Record):
    """A state of a reference trajectory. `valid_actions` is empty for an environment that does not list them."""

    fingerprint: str
    valid_actions: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Followed:
    """The states of a reference trajectory that are what was recorded, and why they end early, if they do."""

    states: tuple[State, ...]
    divergence: str = ""


class Description(Record):
    """An environment's own description. `games` is empty when it brings no tasks of its own.

    `generates_tasks` says that it can be asked for more than it lists; it may have none all the same.
    """

    capabilities: Capabilities
    harness: ChatHarness
    games: tuple[str, ...]
    lists_actions: bool
    canonicalises: bool
    takes_snapshots: bool
    generates_tasks: bool = False


class Answer(Record):
    """The answer to the request of the same `id`.

    A non-empty `error` is why the environment refused; `diverged` says that it is because a restored state is not the
    recorded one. `timed_out` says that it is because a step took too long, after those that `observations` are of; the
    process is of no use then. `too_large` says that it is because an observation is too large, after those that
    `observations` has. `divergence` is why the `states` of a reference trajectory end early. `actions` are a
    demonstration. A score that is not a number is passed on as it is, for the gates that judge it.
    """

    model_config = ConfigDict(ser_json_inf_nan="strings")

    id: str
    error: str = ""
    diverged: bool = False
    timed_out: bool = False
    too_large: bool = False
    observations: tuple[Observation, ...] = ()
    texts: tuple[str, ...] = ()
    tasks: tuple[Task, ...] = ()
    states: tuple[State, ...] = ()
    divergence: str = ""
    actions: tuple[Message, ...] = ()
    description: Description | None = None
    needs: Needs | None = None

    def is_whole(self, request: Request) -> bool:
        """Return whether it has as much as an answer to `request` has where the environment does not refuse."""
        actions = len(request.actions)
        match request.op:
            case "replay":
                return len(self.observations) == 1 + actions
            case "step" | "branch":
                return len(self.observations) == actions
            case "follow":
                return len(self.states) <= 1 + actions
            case "fingerprint":
                return len(self.texts) == 1
            case "canonical":
                return len(self.texts) == actions
            case "needs":
                return self.needs is not None
            case "describe":
                return self.description is not None
        return True
