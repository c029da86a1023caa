"""The learner of a group counts and learns from its members' episodes alone, in a home of its own."""

import asyncio
from collections.abc import Callable
from dataclasses import replace

import pytest
import structlog

from daemon.learning.cycle import new_snapshot
from daemon.learning.loop import Loop
from daemon.learning.practice import Practice
from daemon.learning.role import Learner, take_turns
from daemon.learning.telling import Telling
from daemon.learning.trials import announce
from daemon.registry.learner_status import LearnerPhase, read_learner_status
from daemon.registry.lifecycle import State
from daemon.registry.registry import Registry
from daemon.serving.control_client import ControlClient
from evaluation.gates.verdict import Verdict
from evaluation.report import GateReport
from evaluation.settings import GateSettings
from learners.settings import LearnerSettings, PracticeSettings
from learners.snapshots import read_trajectories
from ratchet_client.events import StepEvent
from streams.errors import TrainingError
from streams.trust.groups import DEFAULT_GROUP, AdapterGroup, AdapterSettings, home_of
from streams.trust.holdout import Split
from tests.builders.episodes import TASKS, episode, task
from tests.builders.practised import practised
from tests.builders.stored import Log, ServedStore
from tests.daemon.conftest import serve_role
from tests.daemon.test_console import CYCLE
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


def practising(loop: Loop) -> Loop:
    """The default group's loop, where a success and a failure of practice suffice for a cycle."""
    everyone = grouped(loop)
    practice = PracticeSettings(enabled=True, min_new_episodes=1, tasks=1, samples=2)
    learner = everyone.settings.learner.model_copy(update={"practice": practice})
    tasks = tuple(task(name) for name in TASKS[Split.TRAIN])
    return replace(everyone, settings=everyone.settings.model_copy(update={"learner": learner}), tasks=tasks)


async def test_a_cycle_is_due_by_what_the_groups_own_adapter_practised(loop: Loop, served_store: ServedStore) -> None:
    everyone = practising(loop)
    acme, log = everyone.of_group("acme", loop.control), Log(served_store.store)
    log.publish(*practised("won", group="acme"), *practised("lost", success=False, group="acme"))
    assert await Learner(acme).is_due()
    assert not await Learner(everyone).is_due()
    snapshot = await new_snapshot(acme, acme.settings.learner)
    assert {each.episode_id for each in read_trajectories(snapshot.folder)} == {"won", "lost"}
    with pytest.raises(TrainingError, match="nothing to learn from yet"):
        await new_snapshot(everyone, everyone.settings.learner)


async def test_practice_of_one_group_stops_for_the_cycle_of_another(
    loop: Loop, served_store: ServedStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    began, stopped, cycles = asyncio.Event(), asyncio.Event(), list[str]()

    async def forever(self: Practice) -> None:
        began.set()
        try:
            await asyncio.Event().wait()
        finally:
            stopped.set()

    async def run(loop: Loop, settings: LearnerSettings, watch: object) -> None:
        cycles.append(loop.members.name if loop.members else "all")
        await asyncio.Event().wait()

    monkeypatch.setattr(Practice, "play_round", forever)
    monkeypatch.setattr("daemon.learning.role.run_cycle", run)
    monkeypatch.setattr("daemon.learning.role._POLL_S", 0.01)
    everyone = practising(loop)
    acme = everyone.of_group("acme", loop.control)
    learning = asyncio.create_task(take_turns([Learner(everyone), Learner(acme)]))
    await began.wait()
    log = Log(served_store.store)
    log.publish(*practised("won", group="acme"), *practised("lost", success=False, group="acme"))
    await eventually(lambda: bool(cycles), "the cycle of the other group begins")
    learning.cancel()
    await asyncio.gather(learning, return_exceptions=True)
    assert stopped.is_set()
    assert cycles == ["acme"]


@pytest.mark.usefixtures("emptied")
async def test_practice_loads_no_champion_that_gave_up_its_place(
    loop: Loop, registry: Registry, inference_url: str, make_adapter: Callable[..., str]
) -> None:
    adapters = AdapterSettings(
        groups={name: AdapterGroup(tenants=(name,)) for name in ("acme", "second", "third")}, max_loras=4
    )
    async with serve_role(registry, inference_url, adapters=adapters) as client:
        for seed, name in enumerate(adapters.groups):
            digest = make_adapter(seed, within=Registry(home_of(registry.home, name)))
            asked = {"digest": digest, "reason": "a test", "actor": "anna"}
            assert (await client.post("/promote", params={"group": name}, json=asked)).is_success
        everyone = practising(loop)
        settings = everyone.settings.model_copy(update={"adapters": adapters})
        async with ControlClient(str(client.base_url), group="acme") as control:
            acme = replace(everyone, settings=settings).of_group("acme", control)
            assert (await control.status()).is_cold
            assert await Practice(acme).play_round() is None
            assert (await control.status()).is_cold


async def test_a_candidate_of_a_group_that_waits_is_told_with_the_commands_of_the_group(loop: Loop) -> None:
    acme = grouped(loop).of_group("acme", loop.control)
    acme.registry.home.mkdir(parents=True)
    for state in (State.TRAINED, State.EVALUATING):
        acme.registry.enter("a" * 64, state, "learner", "a test")
    verdict = acme.registry.enter("a" * 64, State.HELD, "learner", "a test")
    # It is recorded already: the control API is not asked.
    acme.registry.record_cycle(CYCLE.model_copy(update={"verdict": Verdict.HOLD}), "learner")
    report = GateReport(verdict=Verdict.HOLD, reason="a test", gates=(), settings=GateSettings(), held_out=None)
    with structlog.testing.capture_logs() as said:
        await announce(acme, verdict, report, 0)
    (warned,) = (each for each in said if each["log_level"] == "warning")
    assert warned["remedy"].startswith("`ratchet approve --group acme ADAPTER")
