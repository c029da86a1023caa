"""Episodes whose sandboxes hang, die and diverge on the way."""

import pytest

from ratchet_client.events import Task
from ratchet_client.messages import assistant, user
from streams.branch_events import BranchRequest, RecordedStep
from streams.branching.branch import branch
from streams.branching.restored_episode import Trial, restored
from streams.branching.selectors import Uniform
from streams.branching.settings import BranchingSettings
from streams.errors import DivergedError
from streams.sandboxes.pool import SandboxPool
from tests.builders.policies import FixedPolicy, said
from tests.builders.selectors import Late

pytestmark = pytest.mark.usefixtures("faulty_environments")


def request(environment: str, *steps: tuple[str, str]) -> BranchRequest:
    """An episode of the task to light the lamp at place 5."""
    return BranchRequest(
        episode_id="episode-1",
        task=Task(environment=environment, task_id="walk/train/5"),
        opening=(user("The lamp is at 5. You are at 0."),),
        steps=tuple(
            RecordedStep(action=assistant(action), observation=(user(observation),)) for action, observation in steps
        ),
    )


WALKED = (
    ("+1", "You walk. You are at 1."),
    ("+2", "You walk. You are at 3."),
    ("light", "Here is no lamp. You are at 3."),
)


def fates(trials: list[Trial]) -> list[str]:
    return [trial.observation.text if trial.observation else str(trial.failure_kind) for trial in trials]


async def test_an_action_that_hangs_or_kills_its_sandbox_is_a_result_and_affects_no_other() -> None:
    async with (
        SandboxPool("faulty_sound", step_timeout_s=0.5) as pool,
        restored(request("faulty_sound", *WALKED), pool) as episode,
    ):
        trials = await episode.branch(1, said("+1", "hang", "look", "die", "-1"))
        assert fates(trials) == [
            "You walk. You are at 2.",
            "timeout",
            "You look. You are at 1.",
            "died",
            "You walk. You are at 0.",
        ]
        assert len(pool.pids) == 1


@pytest.mark.slow
async def test_actions_that_a_sandbox_did_not_survive_are_reported_and_not_learned_from() -> None:
    settings = BranchingSettings(alternatives=2, step_timeout_s=0.5, invalid_share=1)
    async with SandboxPool("faulty_sound", step_timeout_s=0.5) as pool:
        results = await branch(
            request("faulty_sound", *WALKED), pool, FixedPolicy(said("hang", "die")), Uniform(), settings
        )
    for result in results:
        assert result.fidelity == "sandbox_exact"
        assert result.alternatives == ()
        assert {(each.action.text, each.failure_kind) for each in result.failures} == {
            ("hang", "timeout"),
            ("die", "died"),
        }


async def test_budget_that_one_state_cannot_use_is_spent_on_the_others() -> None:
    settings = BranchingSettings(alternatives=9, round=8, adaptive=True, branches_per_episode=10, samples=0)
    async with SandboxPool("faulty_sound") as pool:
        results = await branch(request("faulty_sound", *WALKED), pool, FixedPolicy(), Late(), settings)
    # There are four alternatives at each state, and most of the budget was meant for the last one.
    assert [len(result.alternatives) for result in results] == [2, 4, 4]


async def test_an_environment_that_diverges_is_caught_every_time() -> None:
    async with SandboxPool("faulty_forgetful") as pool, restored(request("faulty_forgetful", *WALKED), pool) as episode:
        for step in (0, 1, 0, 1):
            with pytest.raises(DivergedError, match="not the one that was walked through"):
                await episode.branch(step, said("look"))


async def test_a_state_that_an_action_did_not_change_is_not_restored_again() -> None:
    steps = (*WALKED, ("look", "You look. You are at 3."))
    async with SandboxPool("faulty_sound") as pool, restored(request("faulty_sound", *steps), pool) as episode:
        trials = await episode.branch(2, said("look", "nonsense", "look", "+1", "look"))
    assert fates(trials)[-1] == "You look. You are at 3."
    assert fates(trials)[0] == fates(trials)[2] == fates(trials)[4]
