"""The learner of a group counts and learns from its members' episodes alone, in a home of its own."""

import asyncio
from dataclasses import replace

import structlog

from daemon.learning.cycle import new_snapshot
from daemon.learning.loop import Loop
from daemon.learning.role import Learner, take_turns
from daemon.learning.telling import Telling
from daemon.registry.learner_status import LearnerPhase, read_learner_status
from learners.snapshots import read_trajectories
from streams.events import StepEvent
from streams.trust.groups import DEFAULT_GROUP, AdapterGroup, AdapterSettings, home_of
from streams.trust.holdout import Split
from tests.builders.episodes import TASKS, episode
from tests.builders.stored import Log, ServedStore
from tests.waiting import eventually

NEEDED = 2
GROUPS = AdapterSettings(groups={"acme": AdapterGroup(tenants=("acme",))})


def grouped(loop: Loop) -> Loop:
    """The loop of the default group beside another."""
    settings = loop.settings.model_copy(update={"adapters": GROUPS})
    return replace(loop, settings=settings, members=GROUPS.members(DEFAULT_GROUP))


def publish(log: Log, name: str, number: int, principal: str) -> None:
    task_id = TASKS[Split.TRAIN][number]
    log.publish(
        *(
            event.model_copy(update={"principal": principal}) if isinstance(event, StepEvent) else event
            for event in episode(name, task_id)
        )
    )
    for step in (0, 1):
        log.branched(name, task_id, step)


async def test_a_cycle_of_one_group_is_due_by_its_own_episodes_and_learns_from_nothing_else(
    loop: Loop, served_store: ServedStore
) -> None:
    log, everyone = Log(served_store.store), grouped(loop)
    acme = everyone.of_group("acme", loop.control)
    assert acme.registry.home == home_of(loop.settings.home, "acme")
    assert not acme.settings.learner.practice.enabled
    for number in range(NEEDED):
        publish(log, f"of-acme-{number}", number, f"acme/{number}")
    publish(log, "of-another", NEEDED, "another")
    assert await Learner(acme).is_due()
    with structlog.testing.capture_logs() as said:
        assert not await Learner(everyone).is_due()
    assert [(each["new"], each["needed"]) for each in said] == [(1, NEEDED)]
    for one, expected in ((acme, {"of-acme-0", "of-acme-1"}), (everyone, {"of-another"})):
        snapshot = await new_snapshot(one, one.settings.learner)
        assert snapshot.folder.parent == one.settings.home / "snapshots"
        trajectories = read_trajectories(snapshot.folder)
        assert {each.episode_id for each in trajectories if each.actor_kind == "expert"} == expected


async def test_learners_take_turns_and_each_tells_in_its_own_home(loop: Loop, served_store: ServedStore) -> None:
    everyone = grouped(loop)
    acme = everyone.of_group("acme", loop.control)
    publish(Log(served_store.store), "of-acme", 0, "acme/anna")
    learners = [Learner(each, Telling(each.settings.home)) for each in (everyone, acme)]
    learning = asyncio.create_task(take_turns(learners))

    def told() -> list[tuple[LearnerPhase, int | None]]:
        found = [read_learner_status(each.settings.home) for each in (everyone, acme)]
        return [(status.phase, status.new) for status in found if status is not None]

    await eventually(lambda: told() == [(LearnerPhase.WAITING, 0), (LearnerPhase.WAITING, 1)], "both wait")
    learning.cancel()
    await asyncio.gather(learning, return_exceptions=True)
