"""A real adapter against itself, through a real server and real sandboxes: no trial promotes it."""

from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path

import pytest

from evaluation.agreement import Agreement
from evaluation.arena import Arena
from evaluation.gates.gate import Competitor, Evidence, TaskLists
from evaluation.gates.registry import load_gates
from evaluation.gates.verdict import Verdict
from evaluation.rollouts import Played
from evaluation.settings import GateSettings, NoForgettingSettings, RolloutSettings
from evaluation.spending import SpentAlpha, lord
from evaluation.trial import hold_trial
from ratchet_client.events import Task
from streams.environments.toolbox.definition import DEFINITION
from streams.environments.toolbox.scaffold import write_toolbox
from streams.policy.client import PolicyClient, Sampling
from streams.sandboxes.pool import SandboxPool
from tests.builders.trials import EVERYTHING_HELD_OUT

TRIALS = 20
BASE = Competitor("base", "base")
SETTINGS = GateSettings(
    gates=("improvement", "no_forgetting", "golden", "slices"),
    min_tasks=32,
    rollouts=RolloutSettings(sampling=Sampling(temperature=1.0, max_tokens=4), concurrency=32),
    no_forgetting=NoForgettingSettings(min_tasks=8, tasks=8),
)
# Success is a toss of a coin for each task: its id and whatever the policy says are hashed. Replies of one seed to
# prompts that hardly differ are often the same, and must not solve all tasks or none.
COIN = """
from hashlib import blake2b

def check(task, messages):
    said = task["task_id"] + (messages[-1].get("content") or "")
    return blake2b(said.encode()).digest()[0] % 2 == 0

def ticket(seed, fold):
    return {"opening": f"Say a number like {seed}."}
"""


@dataclass(frozen=True)
class Reseeded(Arena):
    """Each play draws its replies by another seed: two of the same tasks differ as far as the adapter does."""

    plays: Iterator[int] = field(default_factory=count)

    async def play_together(
        self, tasks: Sequence[Task], models: Sequence[str], on_progress: Callable[[int, int], None] | None = None
    ) -> list[Played]:
        return [await self._seeded().play(tasks, model, on_progress) for model in models]

    def _seeded(self) -> Arena:
        sampling = self.settings.sampling.model_copy(update={"seed": next(self.plays)})
        settings = self.settings.model_copy(update={"sampling": sampling})
        return Arena(self.policy, self.pool, self.harness, settings, account=self.account, able=self.able)


@pytest.fixture
async def pool(tmp_path: Path) -> AsyncIterator[SandboxPool]:
    folder = tmp_path / "coin"
    write_toolbox(folder, "coin", "functions")
    (folder / "coin.py").write_text(COIN)
    definition = (folder / DEFINITION).read_text().replace("domain:check", "coin:check")
    (folder / DEFINITION).write_text(f'{definition}generate = "coin:ticket"\n')
    async with SandboxPool("toolbox", settings={"folder": str(folder)}) as opened:
        yield opened


@pytest.mark.nightly
async def test_an_adapter_against_itself_is_never_promoted_and_its_flips_are_measured(
    pool: SandboxPool, policy: PolicyClient
) -> None:
    arena = Reseeded(policy, pool, (await pool.describe()).harness, SETTINGS.rollouts)
    made = await pool.generate("coin", "train", 0, 40)
    lists = TaskLists(selection=made[:32], confirmation=made[32:])
    verdicts: list[Verdict] = []
    spent: list[SpentAlpha] = []
    pairs = Agreement()
    for _ in range(TRIALS):
        evidence = Evidence(
            arena=replace(arena),
            candidate=Competitor("b" * 64, BASE.served),
            champion=BASE,
            anchor=BASE,
            base=BASE,
            tasks=lists,
            alpha=lord(spent),
            holdout=EVERYTHING_HELD_OUT,
        )
        verdict, _ = await hold_trial(evidence, load_gates(SETTINGS.gates, SETTINGS))
        verdicts.append(verdict)
        spent.append(SpentAlpha(evidence.alpha, verdict is Verdict.PROMOTE))
        pairs += Agreement.of((pair.champion.success, pair.candidate.success) for pair in evidence.pairs)
    assert Verdict.PROMOTE not in verdicts
    assert pairs.tasks >= TRIALS * 32
    # Both sides toss the same coin for themselves: they differ on half of the tasks, and do not agree beyond chance.
    low, high = pairs.discordance_interval or (0.0, 1.0)
    assert low < 0.5 < high + 0.1
    assert pairs.phi is not None
    assert abs(pairs.phi) < 0.3
