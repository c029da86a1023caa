"""ScienceWorld (thirty elementary-school experiments, Java) as an environment. Loaded through its entry point.

Sessions of one process share one Java virtual machine, one thread at a time. Objects are kept in tables by their hash
codes, so the machine is set to give all of them the same: a state is then the same whatever was played before.
"""

from dataclasses import astuple, dataclass
from functools import cache
from typing import Any, ClassVar

from py4j.java_gateway import JavaGateway
from py4j.protocol import Py4JJavaError
from pydantic import BaseModel
from scienceworld.constants import BASEPATH, ID2TASK, JAR_PATH

from ratchet_client.events import Task
from ratchet_client.ids import content_id
from ratchet_client.messages import Message, assistant
from streams.environments.environment import Capabilities, Network, Observation, Restore
from streams.environments.harness import ChatHarness
from streams.environments.jvm import start_jvm
from streams.environments.task_names import parse_task_name
from streams.environments.text_games import PLAIN, TextGameSettings
from streams.errors import SandboxError

ENVIRONMENT = "scienceworld"

_JVM_OPTIONS = ("-Xmx768m", "-XX:+UnlockExperimentalVMOptions", "-XX:hashCode=2")

_SYSTEM_PROMPT = (
    "You are doing an experiment in a text game. Reply with one action, such as: look around, open door to PLACE, "
    "go to PLACE, look in OBJECT, pick up OBJECT, move OBJECT to PLACE, use TOOL on OBJECT, activate DEVICE, "
    "pour OBJECT into CONTAINER, mix CONTAINER, connect OBJECT to OBJECT, focus on OBJECT, wait, inventory. "
    "When it asks which of several actions you mean, reply with the number."
)

# Some of the simulator's own solutions are as long.
_MAX_STEPS = 150

# A reset takes a tenth of a second, and a game has up to 700 tasks in a fold.
_LONGEST_TASK_LIST = 100

# How an answer to an action begins that is none.
_NOT_UNDERSTOOD = ("No known action matches", "Unknown action")

# How an answer begins after which a number chooses among the actions that were meant.
_QUESTION = "Ambiguous request"


@dataclass(frozen=True, slots=True)
class _Shown:
    """All that the simulator shows of its state; `question` is the choice that it waits for, if any."""

    look: str
    inventory: str
    progress: str
    score: float
    completed: bool
    moves: int
    question: str


@cache
def _jvm() -> JavaGateway:
    return start_jvm(JAR_PATH, BASEPATH, *_JVM_OPTIONS)


@cache
def _solver() -> Any:
    """A simulator in a machine of its own, since one that ever made a solution plays differently."""
    gateway = start_jvm(JAR_PATH, BASEPATH, *_JVM_OPTIONS)
    return gateway.jvm.scienceworld.runtime.pythonapi.PythonInterface()


def _simulator() -> Any:
    return _jvm().jvm.scienceworld.runtime.pythonapi.PythonInterface()


@cache
def _variations(game: str) -> dict[str, tuple[int, ...]]:
    """The variations of the folds that may be played."""
    simulator = _simulator()
    simulator.load(game, 0, "", False)
    return {"train": tuple(simulator.getVariationsTrain()), "dev": tuple(simulator.getVariationsDev())}


class ScienceWorld:
    """One session. A task's id is `<game>/<fold>/<variation>`, such as `boil/train/3`; its fold is `train` or `dev`.

    The third fold, `test`, is reserved: no task of it is ever begun or listed.
    """

    capabilities = Capabilities(
        restores=(Restore.REPLAY,),
        deterministic=True,
        side_effects=False,
        network=Network.LOOPBACK,
        costly_start=True,
    )
    settings: ClassVar[type[BaseModel]] = TextGameSettings

    def __init__(self, settings: TextGameSettings = PLAIN) -> None:
        self.harness = settings.harness(ChatHarness(system_prompt=_SYSTEM_PROMPT, max_steps=_MAX_STEPS))
        self._simulator = _simulator()
        self._task: Task | None = None
        self._actions: list[str] = []
        self._valid: list[str] | None = None
        self._shown = _Shown("", "", "", 0.0, False, 0, "")

    def reset(self, task: Task) -> Observation:
        """Begin the task. The text is its description, an empty line and what is seen first."""
        game, variation = _parse(task)
        try:
            self._simulator.load(game, variation, "", False)
            # As the simulator's own package, for until an action is taken it gives the score of the episode before.
            first = self._simulator.step("look around").strip()
        except Py4JJavaError as error:
            raise SandboxError(f"ScienceWorld could not generate {task.task_id}: {error}") from error
        self._task, self._actions, self._valid = task, [], None
        self._shown = self._show(question="")
        description = self._simulator.getTaskDescription().strip()
        return Observation.said(f"{description}\n\n{first}", 0.0, False, False)

    def step(self, action: Message) -> Observation:
        task = self._begun()
        if self._valid is not None:
            # Listing the actions changed what the simulator would list later, so it goes back to where it was.
            actions = self._actions
            self.reset(task)
            for earlier in actions:
                self._step(earlier)
        return self._step(action.text)

    def valid_actions(self) -> list[str]:
        """The actions it would understand now, sorted. The next step takes as long as a replay of the episode."""
        self._begun()
        if self._valid is None:
            self._valid = sorted(set(self._simulator.getValidActionObjectCombinations()))
        return list(self._valid)

    def fingerprint(self) -> str:
        """A hash of the task and all that is shown: place, inventory, progress, score, time, and a question asked."""
        return content_id(self._begun().task_id, *map(str, astuple(self._shown)))

    def demonstration(self, task: Task) -> list[Message]:
        """The actions of the simulator's own solution of `task`, which may take it ten seconds to find."""
        game, variation = _parse(task)
        solver = _solver()
        try:
            solver.load(game, variation, "", True)
            return [assistant(action) for action in solver.getGoldActionSequence()]
        except Py4JJavaError as error:
            raise SandboxError(f"ScienceWorld could not solve {task.task_id}: {error}") from error

    def games(self) -> tuple[str, ...]:
        return tuple(ID2TASK.values())

    def task_list(self, game: str, fold: str) -> tuple[Task, ...]:
        """The first hundred tasks of a fold by their variations, without those that begin like an earlier one."""
        if game not in self.games() or fold not in _variations(game):
            raise SandboxError(
                f"{game!r} is not a game of ScienceWorld, or its fold {fold!r} is reserved or unknown. "
                f"Use train or dev, and a game of {', '.join(self.games())}."
            )
        tasks: dict[str, Task] = {}
        for variation in _variations(game)[fold][:_LONGEST_TASK_LIST]:
            task = Task(environment=ENVIRONMENT, task_id=f"{game}/{fold}/{variation}", seed=variation)
            tasks.setdefault(self.reset(task).text, task)
        return tuple(tasks.values())

    def close(self) -> None:
        """End the session. The Java virtual machine ends with the process."""
        self._simulator, self._task = None, None

    def _begun(self) -> Task:
        if self._task is None:
            raise SandboxError("a session that has no task was asked for its state. Reset it first.")
        return self._task

    def _step(self, action: str) -> Observation:
        try:
            text = self._simulator.step(action).strip()
        except Py4JJavaError as error:
            raise SandboxError(f"ScienceWorld failed at {action!r} in {self._begun().task_id}: {error}") from error
        self._actions.append(action)
        self._shown = self._show(question=text if text.startswith(_QUESTION) else "")
        # A wrong choice ends the task with points below zero; the contract's score runs from 0 to 1.
        score, failed = min(1.0, max(0.0, self._shown.score)), self._shown.score < 0
        return Observation.said(
            f"{text} [score {score:.2f}]",
            score=score,
            done=self._shown.completed or failed,
            success=self._shown.completed and self._shown.score >= 1,
            understood=not text.startswith(_NOT_UNDERSTOOD),
        )

    def _show(self, question: str) -> _Shown:
        # Always asked for after every action and in one order, so that a replay asks for the same.
        simulator = self._simulator
        return _Shown(
            look=simulator.freeActionLook(),
            inventory=simulator.freeActionInventory(),
            progress=simulator.getGoalProgressStr(),
            score=float(simulator.getScore()),
            completed=bool(simulator.getCompleted()),
            moves=int(simulator.getNumMoves()),
            question=question,
        )


def _parse(task: Task) -> tuple[str, int]:
    game, _, variation = parse_task_name(
        task, "ScienceWorld", ID2TASK.values(), lambda game, fold: _variations(game).get(fold, ())
    )
    return game, variation
