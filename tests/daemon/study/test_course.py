"""The phases of a variant, with the tiny model, its real server, training and the support desk's sandbox."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from daemon.config import Settings
from daemon.console import Narrator
from daemon.study.course import Course, Learned, teachable
from daemon.study.laboratory import ModelServer
from daemon.study.plan import Cell, StudyPlan
from daemon.study.results import OUT_OF_DOMAIN
from daemon.study.workshop import BASE, Workshop
from learners.reflections.records import read_reflections
from learners.settings import Stage
from streams.policy.client import PolicyClient
from streams.trust.holdout import Split

HELPDESK = Path(__file__).parents[3] / "examples" / "helpdesk"
START = {"train": [{"objective": "imitation", "updates": 1}], "measure": True}
PRACTISE = {"practise": {"tasks": 2, "samples": 2}}


def plan(**arms: list[dict[str, Any]]) -> StudyPlan:
    """A plan of one cell for each arm, which has these phases."""
    desk = {"environment": "toolbox", "suite": "helpdesk"}
    environments = {"toolbox": {"folder": str(HELPDESK), "max_tokens": 256}}
    return StudyPlan.model_validate(
        {
            "baseline": next(iter(arms)),
            "learn_in": ["desk"],
            "domains": {
                "desk": {"domain": desk, "environments": environments},
                "late": {"domain": {**desk, "fold": "dev"}, "environments": environments},
            },
            "arms": {name: {"variants": [{"phases": phases}]} for name, phases in arms.items()},
            "seeds": [3],
            "demonstrations": [3],
            "alternatives": [1],
            "held_out_tasks": 2,
            "validation_tasks": 2,
            "lora": {"rank": 2, "layers": 1},
        }
    )


@pytest.fixture
async def workshop(tiny_base: Path, policy: PolicyClient, tmp_path: Path) -> AsyncIterator[Workshop]:
    settings = Settings(home=tmp_path / "home", model=str(tiny_base)).settled()
    opened = Workshop(tmp_path / "study", settings, Narrator(), ModelServer(settings, tiny_base, tmp_path, policy))
    async with opened.opened:
        yield opened


def cells(plan: StudyPlan) -> dict[str, Cell]:
    return {cell.arm_name: cell for cell in plan.cells()}


async def learn(workshop: Workshop, cell: Cell) -> Learned:
    course = Course(workshop, cell, threads=1)
    learned = await course.learn(cell.arm.variants[0], measure=True)
    assert len(await course.play(learned.adapter)) == cell.held_out_tasks
    return learned


def made(folder: Path, kind: str) -> dict[str, int]:
    """What lies in a part of the study's folder, with the time when it was made."""
    return {path.name: path.stat().st_mtime_ns for path in (folder / "study" / kind).iterdir()}


@pytest.mark.nightly
async def test_an_adapter_practises_and_goes_on_from_there_and_what_arms_share_is_made_once(
    workshop: Workshop, tmp_path: Path
) -> None:
    more = {"train": [{"objective": "grpo", "updates": 1}, {"objective": "imitation", "updates": 2}]}
    both = plan(start=[START], practised=[START, PRACTISE, more])
    arms = cells(both.model_copy(update={"out_of_domain_tasks": 1}))
    start = await learn(workshop, arms["start"])
    assert [update.objective for update in start.updates] == ["imitation"]
    first, rollouts = made(tmp_path, "adapters"), made(tmp_path, "rollouts")
    assert list(first) == [start.adapter]

    practised = await learn(workshop, arms["practised"])
    after = made(tmp_path, "adapters")
    assert set(after) == {start.adapter, practised.adapter}
    assert after[start.adapter] == first[start.adapter]
    assert rollouts.items() <= made(tmp_path, "rollouts").items()
    # A model of random weights solves nothing, and a group without spread is nothing for GRPO.
    assert practised.skipped == ["grpo"]
    assert [update.objective for update in practised.updates] == ["imitation"] * 3
    measured, *outside = practised.measured
    assert (measured.phase, measured.domain, measured.practised, len(measured.solved)) == (0, "desk", 0, 2)
    assert [(each.phase, each.domain, len(each.solved)) for each in outside] == [
        (phase, OUT_OF_DOMAIN, 1) for phase in (0, 2)
    ]

    demonstrations, episodes = map(workshop.trajectories, practised.sets["desk"])
    assert len(demonstrations) == 3
    assert practised.practised == len(episodes) == 4
    holdout = Settings().holdout
    for episode in episodes:
        assert (episode.origin, episode.success, episode.actor_kind) == ("practice", False, "policy")
        assert holdout.split(episode.task_id) is Split.TRAIN
        assert len(episode.log_probabilities) == len(episode.steps)


@pytest.mark.nightly
async def test_another_domain_is_learned_with_and_without_a_replay_of_the_first(workshop: Workshop) -> None:
    later = {"train": [{"objective": "imitation", "updates": 1}], "domain": "late"}
    arms = cells(plan(forgetful=[START, later], replaying=[START, {**later, "replay": 0.4}]))
    forgetful, replaying = [await learn(workshop, arms[name]) for name in arms]
    assert forgetful.adapter != replaying.adapter
    for learned in (forgetful, replaying):
        assert [(each.phase, each.domain) for each in learned.measured] == [(0, "desk"), (1, "late")]
    desk, late = ({one.task_id for one in workshop.trajectories(forgetful.sets[name][0])} for name in ("desk", "late"))
    joined = await workshop.joined(replaying.sets["late"], replaying.sets["desk"], 0.4, seed=3)
    tasks = [one.task_id for one in workshop.trajectories(joined)]
    assert late <= set(tasks)
    assert (len(tasks), len(desk & set(tasks))) == (5, 2)
    assert await workshop.joined(forgetful.sets["late"], forgetful.sets["desk"], 0.0, 3) == forgetful.sets["late"][0]


@pytest.mark.nightly
async def test_the_base_model_itself_may_practise_and_the_validation_tasks_are_left_out(workshop: Workshop) -> None:
    cell = cells(plan(start=[START]))["start"]
    practise = plan(start=[START, PRACTISE]).arms["start"].variants[0].course[1].practise
    assert practise is not None
    _, others = await workshop.split(cell.data)
    tasks = len((await workshop.laboratory(cell.data.domain)).train)
    reserved = others[1:]
    found = await workshop.practised(cell.data, BASE, practise, (), reserved)
    played = {one.task_id for one in workshop.trajectories(found)}
    assert tasks > len(played) == 2
    assert not played & {task.task_id for task in reserved}


@pytest.mark.nightly
async def test_rationales_are_written_once_for_all_that_reflect_and_joint_losses_are_taught(workshop: Workshop) -> None:
    reflect = {"train": [{"objective": "reflection", "updates": 1}]}
    jointly = [{"objective": "world_model"}, {"objective": "grpo"}, {"objective": "reflection"}]
    joint = {"train": [{"objective": "imitation", "updates": 1, "auxiliary": jointly}]}
    arms = cells(plan(reflects=[reflect], joint=[joint]))
    reflects, both = [await learn(workshop, arms[name]) for name in arms]
    assert (reflects.skipped, both.skipped) == ([], ["grpo"])
    assert [update.objective for update in reflects.updates] == ["reflection"]
    assert both.updates[0].losses.keys() == {"imitation", "world_model", "reflection"}
    (name,) = reflects.sets["desk"]
    (written,) = workshop.snapshot(name).glob("reflections-*.jsonl")
    assert any(not reflection.dropped for reflection in read_reflections(written))


def test_a_stage_that_finds_nothing_is_left_out_and_named() -> None:
    stages = (Stage(objective="imitation", updates=1), Stage(objective="grpo", updates=1))
    assert teachable(stages, ()) == ((), ["imitation", "grpo"])
