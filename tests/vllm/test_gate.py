"""A whole gate over a real vLLM: both sides play tasks of a real environment on it, and the gate says its word."""

from collections.abc import Callable

from daemon.registry.registry import Registry
from evaluation.arena import Arena
from evaluation.gates.gate import Competitor, Evidence, TaskLists
from evaluation.gates.improvement import Improvement
from evaluation.gates.verdict import Verdict
from evaluation.settings import GateSettings, RolloutSettings
from evaluation.trial import hold_trial
from streams.policy.client import PolicyClient
from streams.sandboxes.pool import SandboxPool
from tests.builders.engines import VllmEngine
from tests.builders.trials import BASE, EVERYTHING_HELD_OUT
from tests.vllm.conftest import BASE_NAME, KEY

MakeAdapter = Callable[..., str]
TASKS = 3


async def test_a_gate_plays_both_sides_on_a_real_server(
    first: VllmEngine, registry: Registry, make_adapter: MakeAdapter
) -> None:
    async with (
        PolicyClient(first.url, token=KEY, base_name=BASE_NAME) as policy,
        SandboxPool("textworld_express") as pool,
    ):
        digest = make_adapter(1)
        candidate = Competitor(digest, registry.name(digest, "learner", "to be gated"))
        await policy.load_adapter(candidate.served, str(registry.adapter_folder(digest)))
        tasks = (await pool.tasks("twc", "train"))[:TASKS]
        trial = Evidence(
            arena=Arena(policy, pool, (await pool.describe()).harness, RolloutSettings()),
            candidate=candidate,
            champion=BASE,
            anchor=BASE,
            base=BASE,
            tasks=TaskLists(selection=tuple(tasks)),
            alpha=0.05,
            holdout=EVERYTHING_HELD_OUT,
        )
        verdict, reason = await hold_trial(trial, [Improvement(GateSettings())])
        # Weights drawn by chance win no game, and so few tasks prove nothing.
        assert verdict in (Verdict.REJECT, Verdict.INCONCLUSIVE), reason
        assert not trial.arena.account.excluded
        assert len(trial.results) == 1
        both = [await trial.arena.play(tasks, side.served) for side in (BASE, candidate)]
        assert [len(played) for played in both] == [TASKS, TASKS]
        said = [[message.text for rollout in played for message in rollout.actions] for played in both]
        assert said[0] != said[1]
        await policy.unload_adapter(candidate.served)
