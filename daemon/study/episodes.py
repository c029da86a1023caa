"""The episodes that a study learns from: demonstrations with their branches, and rounds of practice."""

import random
from collections import defaultdict
from collections.abc import Sequence

from daemon.study.laboratory import Laboratory
from daemon.study.plan import Data, Practise
from evaluation.episode import Player
from evaluation.frontier import Attempts
from evaluation.practice import Budget, Practised, Round
from learners.trajectories import Trajectory
from ratchet_client.events import Task
from streams.branch_events import BranchRequest
from streams.branching.settings import BranchingSettings
from streams.policy.client import Sampling

# A round of a study is played to its end, however long it takes.
_BUDGET = Budget(seconds=7 * 24 * 3600.0, steps=10**9, concurrency=8)


async def demonstrate(lab: Laboratory, data: Data, tasks: Sequence[Task]) -> list[Trajectory]:
    """The environment's solutions of the tasks, some of them wrong where the data are so, with their branches."""
    requests = [await lab.demonstrated(task) for task in tasks]
    requests = await _with_wrong(lab, requests, round(data.wrong * len(requests)), data.seed)
    settings = BranchingSettings(
        alternatives=data.alternatives, samples=0, seed=data.seed, environments=data.domain.environments
    )
    return await lab.branched(requests, settings)


async def _with_wrong(lab: Laboratory, requests: list[BranchRequest], wrong: int, seed: int) -> list[BranchRequest]:
    """The demonstrations, `wrong` of them with the actions of another one's task, and what came back then."""
    if not wrong:
        return requests
    rng = random.Random(f"wrong {seed}")
    places = rng.sample(range(len(requests)), wrong)
    changed = list(requests)
    for place in places:
        other = rng.choice([each for number, each in enumerate(requests) if number != place])
        actions = [step.action for step in other.steps]
        changed[place] = await lab.recorded(requests[place].task, actions)
    return changed


async def play_round(lab: Laboratory, model: str, practise: Practise, tasks: Sequence[Task]) -> list[Trajectory]:
    """The episodes of the tasks that the served `model` played, with the log-probabilities of its actions."""
    played: list[Trajectory] = []
    whole = len(tasks) * practise.samples

    async def at_once() -> bool:
        return True  # nobody else is served

    async def keep(practised: Practised) -> None:
        played.append(practised.attempt)
        lab.narrator.advance("practice", min(len(played), whole), whole)

    sampling, harness = Sampling(temperature=practise.temperature), (await lab.pool.describe()).harness
    player = Player(lab.policy, model, harness, sampling, logprobs=True)
    await Round(player, lab.pool, _BUDGET, at_once, keep, practise.second_attempts).play(tasks, practise.samples)
    return [episode for episode in played if episode.steps]


def attempts(rounds: Sequence[Sequence[Trajectory]]) -> dict[str, Attempts]:
    """Of each task, the attempts of the round that played it last; those with advice are no measure of the adapter."""
    known: dict[str, Attempts] = {}
    for episodes in rounds:
        by_task: dict[str, list[bool]] = defaultdict(list)
        for episode in episodes:
            if episode.actor_kind == "policy":
                by_task[episode.task_id].append(episode.success)
        known |= {task: Attempts(len(successes), sum(successes)) for task, successes in by_task.items()}
    return known
