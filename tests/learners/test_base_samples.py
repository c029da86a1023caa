"""The base model answers each prompt once; its answers are learned from as no principal's data."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from learners.base_samples import base_samples
from learners.objectives import OBJECTIVES
from learners.snapshots import read_principals, read_trajectories, write_snapshot
from learners.trajectories import BASE_SAMPLE, Trajectory
from streams.errors import PolicyError, TrainingError
from streams.policy.client import PolicyClient
from streams.trust.holdout import HoldoutSettings, Split
from tests.builders.episodes import HOLDOUT, TASKS
from tests.builders.scripted import ScriptedServer
from tests.builders.trained import trajectory

DIGEST = "b" * 64


@pytest.fixture
def server() -> ScriptedServer:
    return ScriptedServer(lambda _model, first, _turn: "" if first == "Say nothing." else f"Of {first}")


@pytest.fixture
def address(server: ScriptedServer) -> Iterator[str]:
    with server.running() as address:
        yield address


@pytest.fixture
async def policy(address: str) -> AsyncIterator[PolicyClient]:
    async with PolicyClient(address) as client:
        yield client


async def ask(prompts: Path, policy: PolicyClient, home: Path, digest: str = DIGEST) -> tuple[Trajectory, ...]:
    return await base_samples(prompts, policy, "base", digest, home, HOLDOUT)


async def test_each_prompt_is_asked_once_of_one_base_model(
    server: ScriptedServer, policy: PolicyClient, tmp_path: Path
) -> None:
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("Name a river.\n\n Say nothing.\nName a river.\n")
    first = await ask(prompts, policy, tmp_path / "kept")
    assert [(one.opening[0].text, one.steps[0].action.text) for one in first] == [("Name a river.", "Of Name a river.")]
    assert server.asked == [("base", "Name a river."), ("base", "Say nothing.")]
    prompts.write_text("Name a river.\nSay nothing.\nName a sea.\n")
    second = await ask(prompts, policy, tmp_path / "kept")
    assert second[0] == first[0]
    assert server.asked[2:] == [("base", "Name a sea.")]
    await ask(prompts, policy, tmp_path / "kept", "c" * 64)
    assert len(server.asked) == 6


async def test_what_was_answered_before_the_server_failed_is_kept(
    server: ScriptedServer, policy: PolicyClient, tmp_path: Path
) -> None:
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("One.\nTwo.\n")
    whole, server.say = server.say, lambda _model, first, _turn: 400 if first == "Two." else "Yes."
    with pytest.raises(PolicyError, match="refused with 400"):
        await ask(prompts, policy, tmp_path)
    server.say = whole
    assert [one.steps[0].action.text for one in await ask(prompts, policy, tmp_path)] == ["Yes.", "Of Two."]


async def test_samples_are_nobodys_data_on_tasks_of_the_train_split_and_are_imitated(
    policy: PolicyClient, tmp_path: Path
) -> None:
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("".join(f"Count to {number}.\n" for number in range(12)))
    samples = await ask(prompts, policy, tmp_path)
    assert {HOLDOUT.split(one.task_id) for one in samples} == {Split.TRAIN}
    shown = trajectory(0, TASKS[Split.TRAIN][0])
    snapshot = write_snapshot([shown, *samples], HOLDOUT, tmp_path / "snapshots", 7, {})
    assert snapshot.manifest.episodes == {"expert": 1, BASE_SAMPLE: 12}
    assert sum(read_principals(snapshot.folder).values()) == len(shown.principals)
    learned = {
        name: [one for one in objective.examples(read_trajectories(snapshot.folder)) if one.trajectory in samples]
        for name, objective in OBJECTIVES.items()
    }
    assert len(learned["imitation"]) == 12
    assert not learned["rejection_sampling"] + learned["world_model"] + learned["grpo"]


async def test_prompts_that_cannot_be_read_and_a_train_split_without_tasks_are_errors_that_say_what_to_do(
    policy: PolicyClient, tmp_path: Path
) -> None:
    with pytest.raises(TrainingError, match=r"learner\.replay\.base_prompts"):
        await ask(tmp_path / "nowhere.txt", policy, tmp_path)
    (tmp_path / "prompts.txt").write_text("One.")
    everything = HoldoutSettings(selection=1.0, confirmation=0.0)
    with pytest.raises(TrainingError, match="hold out fewer"):
        await base_samples(tmp_path / "prompts.txt", policy, "base", DIGEST, tmp_path, everything)
