"""TextWorld (generated text games, played on a Z-machine) as an environment. Loaded through its entry point.

The story is told by the machine, and TextWorld's own model of the game follows it to know what can be done next.
Nothing of it is a thread or a connection, so its process may fork.
"""

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar

from jericho import FrotzEnv
from pydantic import BaseModel
from textworld.generator.game import Game, GameProgression
from textworld.generator.inform7 import Inform7Game

from ratchet_client.events import Task
from ratchet_client.ids import content_id
from ratchet_client.messages import Message, assistant
from streams.environments.environment import Capabilities, Observation, Restore
from streams.environments.harness import ChatHarness
from streams.environments.task_names import parse_task_name
from streams.environments.text_games import PLAIN, TextGameSettings
from streams.environments.textworld_games import FOLDS, GAMES, generate
from streams.errors import SandboxError

ENVIRONMENT = "textworld"

_SYSTEM_PROMPT = (
    "You are playing a text game. Reply with one action, such as: look, inventory, go DIRECTION, open OBJECT, "
    "take OBJECT, take OBJECT from PLACE, put OBJECT on PLACE, examine OBJECT, cook OBJECT with STOVE, "
    "slice OBJECT with KNIFE, prepare meal, eat OBJECT."
)

_MAX_STEPS = 50

# Their games begin differently, as a test sees to: to generate more of them for a comparison takes too long.
_LISTED = 40

_GENERATED_GAMES = 64

# The machine's dice. Zero and below mean the clock.
_MACHINE_SEED = 1

# Makes the machine tell what happens between brackets, and the state after every turn between tags.
_TOLD = ("tw-trace-actions", "tw-extra-infos description", "tw-extra-infos inventory", "tw-extra-infos score")
_TAGGED = re.compile(r"<(description|inventory|score|moves)>\n(.*?)</\1>", re.DOTALL)
_BRACKETED = re.compile(r"\[([^]]+)\]\n?")
_SUCCEEDED = " - succeeded"

_ENDS = {"*** The End ***": True, "*** You lost! ***": False}

# What the machine reads as a command to itself, not to the story: files, a new beginning, or the tags above.
_TO_THE_MACHINE = re.compile(r"\b(save|restore|restart|quit|q|undo|script|noscript|unscript|transcript|tw-.*)\b")
_NO_VERB = "That's not a verb I recognise."

# Anything else has no meaning in a game, and a backslash would speak to the machine.
_UNSPEAKABLE = re.compile(r"[^a-z0-9 ,.;'-]")

# How an answer begins after which the next action may be the missing word.
_QUESTIONS = ("What do you want", "Which do you mean")

# Answered by the game without a turn.
_TURNLESS = ("help", "goal")


@dataclass(frozen=True, slots=True)
class _Story:
    """A generated game: what it is, and where its compiled story lies."""

    file: str
    game: Any
    language: Any


@dataclass(frozen=True, slots=True)
class _Shown:
    """The last state that the machine reported. `won` is none until the end."""

    text: str
    description: str
    inventory: str
    points: int
    turn_taken: bool
    won: bool | None


@dataclass(frozen=True, slots=True)
class _Snapshot:
    task: Task
    machine: tuple[Any, ...]
    progression: Any
    shown: _Shown


@lru_cache(_GENERATED_GAMES)
def _story(game: str, fold: str, number: int) -> _Story:
    file = generate(game, fold, number)
    generated = Game.load(str(file.with_suffix(".json")))
    return _Story(str(file), generated, Inform7Game(generated))


class TextWorld:
    """One session. A task's id is `<game>/<fold>/<number>`, such as `cooking/train/17`; its fold is `train` or `dev`.

    The numbers from 0 to 999 are `train`, those up to 1999 `dev`. The rest is the reserved fold `test`, never begun or
    listed. The first reset to a task takes seconds, for its game is generated then.
    """

    capabilities = Capabilities(
        restores=(Restore.SNAPSHOT, Restore.FORK, Restore.REPLAY), deterministic=True, side_effects=False
    )
    settings: ClassVar[type[BaseModel]] = TextGameSettings

    def __init__(self, settings: TextGameSettings = PLAIN) -> None:
        self.harness = settings.harness(ChatHarness(system_prompt=_SYSTEM_PROMPT, max_steps=_MAX_STEPS))
        self._task: Task | None = None
        self._machine: Any = None
        self._progression: Any = None
        self._story: _Story
        self._shown = _Shown("", "", "", 0, False, None)

    def reset(self, task: Task) -> Observation:
        """Begin the task. The text is its goal, an empty line and what is seen first."""
        self._task = None
        self._story = _story(*_parse(task))
        if self._machine is None:
            self._machine = FrotzEnv(self._story.file, _MACHINE_SEED)
        else:
            self._machine.load(self._story.file, _MACHINE_SEED)
        self._machine.reset()
        for command in _TOLD:
            answer, *_ = self._machine.step(command)
        self._progression = GameProgression(self._story.game, track_quests=False)
        self._shown = _read(answer, self._shown)
        self._task = task
        return Observation.said(f"{self._story.game.objective.strip()}\n\n{self._shown.description}", 0.0, False, False)

    def step(self, action: Message) -> Observation:
        self._begun()
        said = " ".join(_UNSPEAKABLE.sub(" ", action.text.lower()).split())
        if self._shown.won is not None:
            return self._observed("The game is over.", understood=False)
        if _TO_THE_MACHINE.search(said):
            return self._observed(_NO_VERB, understood=False)
        answer, *_ = self._machine.step(said)
        for event in _events(answer):
            happened = self._story.language.detect_action(event, self._progression.valid_actions)
            if happened is not None:
                self._progression.update(happened)
        self._shown = _read(answer, self._shown)
        return self._observed(self._shown.text, understood=self._shown.turn_taken or said in _TURNLESS)

    def valid_actions(self) -> list[str]:
        self._begun()
        if self._shown.won is not None:
            return []
        return sorted(set(self._story.language.gen_commands_from_actions(self._progression.valid_actions)))

    def fingerprint(self) -> str:
        """A hash of the task, all facts of the game's model, what is seen and held, the score, and a question asked.

        The number of turns is not in it, and is never told. Nor is what `it` stands for or `again` would do.
        """
        shown = self._shown
        question = shown.text if shown.text.startswith(_QUESTIONS) else ""
        facts = sorted(str(fact) for fact in self._progression.state.facts)
        told = (shown.description, shown.inventory, str(shown.points), str(shown.won), question)
        return content_id(self._begun().task_id, *told, *facts)

    def snapshot(self) -> object:
        return _Snapshot(self._begun(), self._machine.get_state(), self._progression.copy(), self._shown)

    def restore(self, snapshot: object) -> None:
        if not isinstance(snapshot, _Snapshot):
            raise SandboxError(f"a {type(snapshot).__name__} is not a snapshot of TextWorld. Take one first.")
        if snapshot.task != self._task:
            self.reset(snapshot.task)
        self._machine.set_state(snapshot.machine)
        self._progression, self._shown = snapshot.progression.copy(), snapshot.shown

    def demonstration(self, task: Task) -> list[Message]:
        """The actions of the generator's own solution of `task`."""
        return [assistant(action) for action in _story(*_parse(task)).game.metadata["walkthrough"]]

    def games(self) -> tuple[str, ...]:
        return GAMES

    def task_list(self, game: str, fold: str) -> tuple[Task, ...]:
        """The first forty tasks of a fold. More can be named."""
        if game not in GAMES or fold not in FOLDS:
            raise SandboxError(
                f"{game!r} is not a game of TextWorld, or its fold {fold!r} is reserved or unknown. "
                f"Use train or dev, and a game of {', '.join(GAMES)}."
            )
        return tuple(
            Task(environment=ENVIRONMENT, task_id=f"{game}/{fold}/{number}", seed=number)
            for number in FOLDS[fold][:_LISTED]
        )

    def generate(self, game: str, fold: str, first: int, count: int) -> tuple[Task, ...]:
        """The tasks of a fold that are not listed. A number is the seed of its game."""
        self.task_list(game, fold)  # refuses what there is not
        return tuple(
            Task(environment=ENVIRONMENT, task_id=f"{game}/{fold}/{number}", seed=number)
            for number in FOLDS[fold][_LISTED:][first : first + count]
        )

    def close(self) -> None:
        """End the session. The games that were generated stay until the process and its temporary files go."""
        self._task, self._machine, self._progression = None, None, None

    def _begun(self) -> Task:
        if self._task is None:
            raise SandboxError("a session that has no task was asked for its state. Reset it first.")
        return self._task

    def _observed(self, text: str, *, understood: bool) -> Observation:
        score = min(1.0, max(0.0, self._shown.points / self._story.game.max_score))
        done, won = self._shown.won is not None, bool(self._shown.won)
        return Observation.said(f"{text} [score {score:.2f}]", score, done, won, understood)


def _parse(task: Task) -> tuple[str, str, int]:
    return parse_task_name(task, "TextWorld", GAMES, lambda game, fold: FOLDS.get(fold, ()))


def _events(answer: str) -> list[str]:
    """The actions that succeeded, as the machine names them; a name with a parenthesis is only a part of another."""
    told = (match.partition(_SUCCEEDED) for match in _BRACKETED.findall(_TAGGED.sub("", answer)))
    return [event for event, succeeded, _ in told if succeeded and not {"(", ")"} & set(event)]


def _read(answer: str, before: _Shown) -> _Shown:
    """One answer of the machine; fields that it does not have are unchanged."""
    told = {tag: _prose(text) for tag, text in _TAGGED.findall(answer)}
    text = _prose(_TAGGED.sub("", answer))
    won = None
    for end, verdict in _ENDS.items():
        if end in text:
            # After it the machine tells the number of turns, and asks whether to begin again.
            text, won = text.partition(end)[0] + end, verdict
    return _Shown(
        text=text,
        description=told.get("description", before.description),
        inventory=told.get("inventory", before.inventory),
        points=int(told.get("score", before.points)),
        turn_taken="score" in told or won is not None,
        won=won,
    )


def _prose(told: str) -> str:
    lines = "\n".join(line.strip() for line in _BRACKETED.sub("", told).split("\n"))
    return re.sub(r"\n{3,}", "\n\n", lines).strip()
