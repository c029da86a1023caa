"""TextWorldExpress (eight text games, Java) as an environment. Loaded by the sandbox worker through its entry point.

Sessions of one process share one Java virtual machine: a machine takes a second to start and some 80 MB, a session
next to nothing. One thread at a time may use them.
"""

import json
from collections import defaultdict
from functools import cache
from typing import Any, ClassVar

from py4j.java_gateway import JavaGateway
from py4j.protocol import Py4JJavaError
from pydantic import BaseModel
from textworld_express.constants import BASEPATH, GAME_NAMES, JAR_PATH

from ratchet_client.events import Task
from ratchet_client.ids import content_id
from ratchet_client.messages import Message, assistant
from streams.environments.environment import Capabilities, Network, Observation, Restore
from streams.environments.harness import ChatHarness
from streams.environments.jvm import start_jvm
from streams.environments.task_names import parse_task_name
from streams.environments.text_games import PLAIN, TextGameSettings
from streams.errors import SandboxError

ENVIRONMENT = "textworld_express"

# One room and two objects: an episode is about six actions long, which a small model can learn in minutes.
GAME_PARAMETERS = {"twc": "numLocations=1,numItemsToPutAway=2,includeDoors=0,limitInventorySize=0"}

# How an answer to an action begins that is none.
_NOT_UNDERSTOOD = "Unknown action"

# Its gold paths begin with it, and it says again what the first observation said.
_REDUNDANT_ACTION = "look around"


@cache
def _jvm() -> JavaGateway:
    # It reads its word lists relative to its working directory.
    return start_jvm(JAR_PATH, BASEPATH, "-Xmx256m")


@cache
def _seeds() -> dict[str, frozenset[int]]:
    """The seeds of the folds that may be played."""
    server = _jvm().jvm.textworldexpress.runtime.PythonInterface()
    return {"train": frozenset(server.getSeedsTrain()), "dev": frozenset(server.getSeedsDev())}


# Loading a game reads its word lists and takes as long as five resets, so one that was loaded is kept for later.
_idle: defaultdict[str, list[Any]] = defaultdict(list)


def _load(game: str) -> Any:
    server = _jvm().jvm.textworldexpress.runtime.PythonInterface()
    if refusal := server.load(game, GAME_PARAMETERS.get(game, "")):
        raise SandboxError(f"TextWorldExpress does not load the game {game!r}: {refusal}")
    return server


class TextWorldExpress:
    """One session. A task's id is `<game>/<fold>/<seed>`, such as `twc/train/17`; its fold is `train` or `dev`.

    The third fold, `test`, is reserved: no task of it is ever begun or listed.
    """

    # No counter-example in thousands of random states. Only a lost game of simonsays goes on unseen, and there nothing
    # is tried any more.
    capabilities = Capabilities(
        restores=(Restore.REPLAY,),
        deterministic=True,
        side_effects=False,
        complete_fingerprint=True,
        network=Network.LOOPBACK,
        costly_start=True,
    )
    settings: ClassVar[type[BaseModel]] = TextGameSettings

    def __init__(self, settings: TextGameSettings = PLAIN) -> None:
        self.harness = settings.harness(ChatHarness())
        _seeds()  # slow the first time, and a reset has less time than an opening
        self._server: Any = None
        self._game = ""
        self._task_id = ""
        self._state: dict[str, Any] = {}

    def reset(self, task: Task) -> Observation:
        """Begin the task. The text is the game's description, an empty line and the first observation."""
        return self._begin(task, gold=False)

    def step(self, action: Message) -> Observation:
        if not self._state:
            raise SandboxError("a step was asked of a session that has no task. Reset it first.")
        said = action.text
        if said == "help":
            # As the simulator's own Python package, which agents play through: the simulator never sees this word.
            return self._observed(self._server.getTaskDescription())
        try:
            self._state = self._read(self._server.stepJSON(said))
        except Py4JJavaError as error:
            raise SandboxError(f"TextWorldExpress failed at {said!r} in {self._task_id}: {error}") from error
        return self._observed(self._state["observation"])

    def valid_actions(self) -> list[str]:
        return sorted(set(self._state["validActions"]))

    def fingerprint(self) -> str:
        """A hash of the task and all the simulator shows of its state: room, inventory, valid actions and score."""
        shown = {**self._state, "observation": "", "validActions": sorted(self._state["validActions"])}
        return content_id(self._task_id, json.dumps(shown, sort_keys=True))

    def demonstration(self, task: Task) -> list[Message]:
        """The actions of the simulator's own solution of `task`, without those that do nothing."""
        self._begin(task, gold=True)
        gold = self._server.getGoldActionSequence()
        return [assistant(action) for action in gold if action != _REDUNDANT_ACTION]

    def games(self) -> tuple[str, ...]:
        return tuple(GAME_NAMES)

    def task_list(self, game: str, fold: str) -> tuple[Task, ...]:
        """The tasks of a fold in the order of their seeds, without those that begin like an earlier one.

        Many seeds give the same game, and a game met in training must not be met again in an evaluation.
        """
        if fold not in _seeds():
            raise SandboxError(f"the fold {fold!r} of {game!r} is reserved or unknown. Use train or dev.")
        tasks: dict[str, Task] = {}
        for seed in sorted(_seeds()[fold]):
            task = Task(environment=ENVIRONMENT, task_id=f"{game}/{fold}/{seed}", seed=seed)
            tasks.setdefault(self.reset(task).text, task)
        return tuple(tasks.values())

    def close(self) -> None:
        """End the session. The Java virtual machine ends with the process."""
        if self._game:
            _idle[self._game].append(self._server)
        self._server, self._game, self._state = None, "", {}

    def _begin(self, task: Task, *, gold: bool) -> Observation:
        numbers = _seeds()
        game, fold, seed = parse_task_name(
            task, "TextWorldExpress", GAME_NAMES, lambda game, fold: numbers.get(fold, frozenset())
        )
        if game != self._game:
            self.close()
            self._server, self._game = _idle[game].pop() if _idle[game] else _load(game), game
        try:
            generated = self._server.generateNewGameJSON(seed, fold, gold)
        except Py4JJavaError as error:
            raise SandboxError(f"TextWorldExpress could not generate {task.task_id}: {error}") from error
        self._task_id, self._state = task.task_id, self._read(generated)
        first = self._state["observation"].strip()
        return Observation.said(f"{self._server.getTaskDescription()}\n\n{first}", self._score(), False, False)

    def _observed(self, text: str) -> Observation:
        score, success = self._score(), bool(self._state["tasksuccess"])
        done = success or bool(self._state["taskfailure"]) or score >= 1.0
        understood = not text.startswith(_NOT_UNDERSTOOD)
        return Observation.said(f"{text.strip()} [score {score:.2f}]", score, done, success, understood)

    def _score(self) -> float:
        # Some games take points away; the contract's score runs from 0 to 1.
        return min(1.0, max(0.0, float(self._state["score"])))

    @staticmethod
    def _read(answer: str) -> dict[str, Any]:
        state: dict[str, Any] = json.loads(answer)
        return state
