"""Rollouts, pairs and evidence for the gates that are judged without playing."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from evaluation.arena import Arena
from evaluation.gates.gate import Competitor, Evidence, TaskLists
from evaluation.rollouts import Exclusion, Pair, Played, Rollout
from evaluation.settings import RolloutSettings
from ratchet_client.events import Task
from ratchet_client.messages import Messages, assistant
from streams.environments.harness import ChatHarness
from streams.policy.client import PolicyClient
from streams.sandboxes.pool import SandboxPool
from streams.trust.holdout import HoldoutSettings

EVERYTHING_HELD_OUT = HoldoutSettings(selection=1.0, confirmation=0.0)
BASE = Competitor("base", "base")
CHAMPION = Competitor("a" * 64, "ratchet-3-aaaaaaaaaaaa")
CANDIDATE = Competitor("b" * 64, "ratchet-7-bbbbbbbbbbbb")
LOOKED = (assistant("look around"), assistant("take plate"))


def tasks(count: int) -> list[Task]:
    """Tasks of the text game."""
    return [Task(environment="textworld_express", task_id=f"twc/train/{n}", seed=n) for n in range(count)]


def rollout(task: Task, success: bool, actions: Messages = LOOKED, invalid_actions: int = 0) -> Rollout:
    """A rollout that took `actions`."""
    return Rollout(task.task_id, success, float(success), len(actions), invalid_actions, actions)


def pairs(by_champion: Sequence[bool], by_candidate: Sequence[bool]) -> list[Pair]:
    """Tasks, and whether each side solved them."""
    played = tasks(len(by_champion))
    return [
        Pair(task, rollout(task, one), rollout(task, other))
        for task, one, other in zip(played, by_champion, by_candidate, strict=True)
    ]


@dataclass(frozen=True)
class RecordedArena(Arena):
    """An arena that looks results up instead of playing: `results` maps a task and a served name to a rollout, or to
    None where the task is to be excluded.

    `asked` are the served names and the number of tasks that it was to play.
    """

    results: Callable[[Task, str], Rollout | None] = lambda task, model: rollout(task, False)
    asked: list[tuple[str, int]] = field(default_factory=list)

    async def play_together(
        self, tasks: Sequence[Task], models: Sequence[str], on_progress: Callable[[int, int], None] | None = None
    ) -> list[Played]:
        played = list[Played]()
        for model in models:
            played.append(self._looked_up(tasks, model))
            if on_progress is not None:
                on_progress(len(tasks) * len(played), len(tasks) * len(models))
        return played

    def _looked_up(self, tasks: Sequence[Task], model: str) -> Played:
        self.asked.append((model, len(tasks)))
        outcomes = [(task, self.results(task, model)) for task in tasks]
        played = Played(
            tuple(outcome for _, outcome in outcomes if outcome is not None),
            tuple(Exclusion(task, "it could not be played") for task, outcome in outcomes if outcome is None),
        )
        self.account.add(played)
        return played


def evidence(
    selection: Sequence[Task] = (),
    results: Callable[[Task, str], Rollout | None] = lambda task, model: rollout(task, False),
    alpha: float = 0.05,
) -> Evidence:
    """The evidence on a candidate, in an arena that looks results up."""
    nowhere, pool = PolicyClient("http://127.0.0.1:9"), SandboxPool("textworld_express")
    return Evidence(
        arena=RecordedArena(nowhere, pool, ChatHarness(), RolloutSettings(), results=results),
        candidate=CANDIDATE,
        champion=CHAMPION,
        anchor=BASE,
        base=BASE,
        tasks=TaskLists(selection=tuple(selection)),
        alpha=alpha,
        holdout=EVERYTHING_HELD_OUT,
    )
