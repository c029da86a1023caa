"""The interface that a simulator, tool suite or server offers so that Ratchet can branch and evaluate in it.

An adapter is a class that satisfies `Environment` and as many of the smaller protocols below as it can, and registers
under the entry-point group `ratchet.environments`. `ratchet environment check NAME` tells whether it keeps its word.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Protocol, Self, runtime_checkable

from pydantic import BaseModel

from ratchet_client.events import Task
from ratchet_client.messages import Message, Messages, Tools, text_of, tool_result, user
from streams.environments.harness import ChatHarness


class Restore(StrEnum):
    """A way to bring a recorded state back."""

    SNAPSHOT = "snapshot"
    """By a copy of the state, which the environment takes and puts back itself: it satisfies `Snapshots`."""
    FORK = "fork"
    """By forking the process that is in the state: it holds no thread, connection or child that a fork would break."""
    REPLAY = "replay"
    """By a reset and the actions that led there: it is deterministic."""


WORKING_FOLDER = "working_folder"
"""In the context that settings are validated in: the folder that relative paths in them start from."""


class Network(StrEnum):
    """The network that an environment needs."""

    NONE = "none"
    LOOPBACK = "loopback"
    """Sockets between the sandbox's own processes, as a Java virtual machine needs."""
    REMOTE = "remote"
    """A server outside of the sandbox, which then does the isolating."""


@dataclass(frozen=True, slots=True)
class Capabilities:
    """The promises of an environment about its states.

    `restores` are the ways its states can be brought back, cheapest first; with none, its steps cannot be branched.
    `complete_fingerprint` promises that states of one fingerprint are the same state: an action that leaves it as it
    was has changed nothing, and what is tried next needs no restoring. `costly_start` says that a process takes seconds
    or hundreds of megabytes, as a Java virtual machine does: episodes of one side of a gate then share processes.
    `initial_states` says that `reset` begins in the state that `Task.state` names, or raises `SandboxError`.
    """

    restores: tuple[Restore, ...]
    deterministic: bool
    side_effects: bool
    complete_fingerprint: bool = False
    network: Network = Network.NONE
    costly_start: bool = False
    initial_states: bool = False


@dataclass(frozen=True, slots=True)
class Observation:
    """The answer to a reset or a step. `score` runs from 0 to 1, `success` is the verdict.

    `messages` are what the policy reads next: what the user says, results of the tools it called, or both. `tools` are
    those that it may call from here on, None where they are the ones of before; before a reset there are none.
    `understood` is false where the environment could make nothing of the action and said so.
    """

    messages: Messages
    score: float
    done: bool
    success: bool
    understood: bool = True
    tools: Tools | None = None

    @classmethod
    def said(cls, text: str, score: float, done: bool, success: bool, understood: bool = True) -> Self:
        """An answer in the user's words: the whole of what a text game shows."""
        return cls((user(text),), score, done, success, understood)

    @classmethod
    def answering(
        cls, action: Message, text: str, score: float, done: bool, success: bool, understood: bool = True
    ) -> Self:
        """`text` as the answer to each call of `action`, or in the user's words where it calls nothing."""
        answers = tuple(tool_result(text, call.id) for call in action.calls)
        return cls(answers or (user(text),), score, done, success, understood)

    @property
    def text(self) -> str:
        """The texts of its messages."""
        return text_of(self.messages)

    def is_larger_than(self, most_bytes: int) -> bool:
        """Return whether its messages and tools are more, as JSON in UTF-8. One far larger is not copied for that."""
        if sum(len(text) for message in self.messages for text in message.texts()) > most_bytes:
            return True
        said = [[message.model_dump(mode="json", exclude_none=True) for message in self.messages], self.tools or ()]
        return len(json.dumps(said, ensure_ascii=False).encode(errors="surrogatepass")) > most_bytes


@runtime_checkable
class Environment(Protocol):
    """One session of a simulator. Lives in a sandbox process; never in production.

    The class itself has `capabilities` too: what it needs of the network counts before a session is opened.
    """

    capabilities: Capabilities
    harness: ChatHarness

    def reset(self, task: Task) -> Observation:
        """Begin the task from its first state. Raises `SandboxError` for a task that does not exist or is reserved."""
        ...

    def step(self, action: Message) -> Observation:
        """Execute one action, an assistant's message: text games read its text, tool suites its calls.

        An action that the environment does not understand is answered, not raised.
        """
        ...

    def fingerprint(self) -> str:
        """A hash that changes whenever the state does."""
        ...

    def close(self) -> None: ...


@runtime_checkable
class Configured(Protocol):
    """The interface of the *class* of an environment with settings: instances are made from them."""

    settings: type[BaseModel]

    def __call__(self, settings: BaseModel) -> Environment: ...


@runtime_checkable
class ReadsFiles(Protocol):
    """The interface of the settings of an environment that reads files of its own, which its sandboxes must be let."""

    def readable(self) -> tuple[Path, ...]:
        """Absolute paths of files and folders."""
        ...


@runtime_checkable
class NamesHosts(Protocol):
    """The interface of the settings of an environment that says which servers it connects to."""

    def hosts(self) -> tuple[str, ...]:
        """Each as `host:port`. The operator allows them in `branching.permissions`."""
        ...


@runtime_checkable
class SharesProcesses(Protocol):
    """The interface of the settings of an environment that says whether an action can change the process it runs in."""

    def shares_processes(self) -> bool:
        """Return whether none can. Episodes of one side of a gate then share processes."""
        ...


@runtime_checkable
class NamesTasks(Protocol):
    """The interface of the settings of an environment whose tasks have other names than those that it lists."""

    def other_names(self) -> Mapping[str, tuple[str, ...]]:
        """By each other name the ids of the tasks that have it, as they are listed. Raises `SandboxError`.

        The holdout then has a task on one side under all of its names.
        """
        ...


@runtime_checkable
class ListsActions(Protocol):
    """The interface of an environment whose actions are texts, and which knows the valid ones."""

    def valid_actions(self) -> list[str]:
        """The texts it would understand now, sorted. Asking changes nothing that is ever observed."""
        ...


@runtime_checkable
class Snapshots(Protocol):
    """The interface of an environment that declares `Restore.SNAPSHOT`."""

    def snapshot(self) -> object:
        """A copy of the present state. It holds as long as the session, and can be restored any number of times."""
        ...

    def restore(self, snapshot: object) -> None:
        """Bring back the state that `snapshot`, which this session took, is a copy of."""
        ...


@runtime_checkable
class Canonicalises(Protocol):
    """The interface of an environment whose actions have several spellings that no general rule unifies."""

    def canonical(self, action: Message) -> str:
        """A key that is the same for all actions that do the same as `action`."""
        ...


@runtime_checkable
class TaskSource(Protocol):
    """The interface of an environment that brings its own tasks."""

    def games(self) -> tuple[str, ...]:
        """The kinds of tasks it has."""
        ...

    def task_list(self, game: str, fold: str) -> tuple[Task, ...]:
        """Tasks that differ from their first observation on. Raises `SandboxError` for a reserved fold.

        Of variants of one task the ids differ only in what follows a `~`: the holdout then keeps them together.
        """
        ...

    def demonstration(self, task: Task) -> list[Message]:
        """Actions that solve `task`. The gate takes the shortest that is known for a bound: none should be shorter."""
        ...


@runtime_checkable
class BringsUnsolvableTasks(Protocol):
    """The interface of an environment with tasks that look like its others and cannot be solved.

    A success on one is a fault of the environment, or of what is played: the gate holds such a candidate up.
    """

    def unsolvable(self, game: str) -> tuple[Task, ...]:
        """The unsolvable tasks of a kind; `task_list` has none of them."""
        ...


@runtime_checkable
class GeneratesTasks(Protocol):
    """The interface of an environment that makes tasks beyond those that it lists, for gates that need fresh ones."""

    def generate(self, game: str, fold: str, first: int, count: int) -> tuple[Task, ...]:
        """The tasks number `first` to `first + count - 1` of a sequence like those of the fold; fewer where it ends.

        An id is no listed task's, and names the same task in every process and for good: `reset` begins it from the id
        alone. The holdout goes by the ids, so that those which fall to training are never played by a gate, and the
        others never trained on. Empty where it generates none. Raises `SandboxError` for a reserved fold.
        """
        ...
