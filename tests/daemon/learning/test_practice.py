"""Practice between cycles: what is played, when, and what becomes of it."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import structlog
from fastapi import FastAPI
from pydantic import SecretStr

from daemon.config import DomainSettings, EngineSettings, Settings
from daemon.demo.helpdesk import FOLDER as HELPDESK
from daemon.learning.loop import Loop, open_loop
from daemon.learning.practice import Practice
from daemon.learning.role import Learner
from daemon.registry.registry import Registry
from daemon.registry.schemas import StatusReport
from daemon.roles import Role
from daemon.serving.control_client import ControlClient
from daemon.serving.settings import ServingSettings
from daemon.supervisor import Supervisor
from evaluation.practice import Practised
from evaluation.settings import GateSettings, TaskListSettings
from learners.adapters import AdapterStore
from learners.settings import LearnerSettings, PracticeSettings, Stage
from learners.snapshots import build_snapshot, read_trajectories
from ratchet_client.events import Task
from streams.environments.toolbox.generated import generated_id
from streams.intake.admission import AdmissionSettings
from streams.policy.client import PolicyClient
from streams.runtime.processes import free_port
from streams.sandboxes.pool import SandboxPool
from streams.store.client import StoreClient
from streams.store.settings import StoreSettings
from streams.store.status import PracticeCounts
from streams.trust.holdout import HoldoutSettings, Split
from tests.builders.episodes import HOLDOUT, TASKS, episode, task
from tests.builders.practised import practised
from tests.builders.stored import Log, ServedStore
from tests.builders.trained import entered
from tests.served import served
from tests.waiting import eventually

TRAIN = TASKS[Split.TRAIN]
PRACTICE = PracticeSettings(enabled=True, min_new_episodes=2, tasks=2, samples=2)


@pytest.fixture
async def loop(served_store: ServedStore, registry: Registry, tiny_base: Path) -> AsyncIterator[Loop]:
    """What the learner works with, where nothing plays or serves; the tasks are of all splits."""
    learner = LearnerSettings(practice=PRACTICE)
    async with (
        StoreClient(served_store.url) as store,
        PolicyClient("http://127.0.0.1:9") as policy,
        ControlClient("http://127.0.0.1:9") as control,
    ):
        yield Loop(
            settings=Settings(home=registry.home, learner=learner, holdout=HOLDOUT).settled(),
            base=tiny_base,
            registry=registry,
            adapters=AdapterStore(registry.home / "adapters"),
            store=store,
            policy=policy,
            control=control,
            pool=SandboxPool("textworld_express"),
            tasks=tuple(task(name) for names in TASKS.values() for name in names),
            held_out=(),
            out_of_domain=(),
        )


def test_no_task_that_anything_is_judged_by_is_practised(loop: Loop) -> None:
    names = [one.task_id for one in Practice(loop).tasks]
    assert sorted(names) == sorted(TRAIN)
    kept = ("golden", "out_of_domain", "unsolvable", "held_out", "confirmation")
    for number, name in enumerate(kept):
        variant = Task(environment="textworld_express", task_id=f"{TRAIN[number]}~variant")
        others: dict[str, Any] = {name: (variant,)}
        narrowed = Practice(replace(loop, **others))
        assert {one.task_id for one in narrowed.tasks} == set(TRAIN) - {TRAIN[number]}


def test_practice_is_off_unless_it_is_asked_for_and_rests_between_rounds(loop: Loop) -> None:
    assert Practice(loop).is_wanted()
    assert not Practice(replace(loop, settings=with_practice(loop, enabled=False))).is_wanted()
    assert not LearnerSettings().practice.enabled
    assert not Practice(replace(loop, tasks=())).is_wanted()


def with_practice(loop: Loop, **changes: Any) -> Settings:
    practice = loop.settings.learner.practice.model_copy(update=changes)
    learner = loop.settings.learner.model_copy(update={"practice": practice})
    return loop.settings.model_copy(update={"learner": learner})


async def test_enough_practice_makes_a_cycle_due_once(loop: Loop, served_store: ServedStore) -> None:
    learner, log = Learner(loop), Log(served_store.store)
    log.publish(*practised("a", TRAIN[0]), *practised("b", TRAIN[0]))
    assert not await learner.is_due(), "a group without a failure teaches nothing"
    log.publish(*practised("c", TRAIN[0], success=False))
    assert await learner.is_due()
    assert not await Learner(replace(loop, settings=with_practice(loop, enabled=False))).is_due()
    snapshot = await build_snapshot(loop.store, HOLDOUT, loop.settings.home / "snapshots")
    entered(loop.settings.home, snapshot)
    assert not await learner.is_due()


async def test_a_cycle_for_practice_alone_has_stages_of_its_own(
    loop: Loop, served_store: ServedStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[tuple[Stage, ...]] = []

    async def run(loop: Loop, settings: LearnerSettings, watch: object) -> None:
        ran.append(settings.stages)

    monkeypatch.setattr("daemon.learning.role.run_cycle", run)
    log, settings = Log(served_store.store), with_practice(loop, enabled=True)
    patient = settings.learner.model_copy(update={"min_new_episodes": 1, "branch_patience_s": 0.0})
    learner = Learner(replace(loop, settings=settings.model_copy(update={"learner": patient})))
    log.publish(*practised("a", TRAIN[0]), *practised("b", TRAIN[0]), *practised("c", TRAIN[0], success=False))
    await eventually(learner.is_due)
    await learner.run_cycle()
    log.publish(*episode("mine", TRAIN[1], "policy"))
    await eventually(learner.is_due)
    await learner.run_cycle()
    assert ran == [patient.practice.stages, patient.stages]
    assert [stage.objective for stage in ran[0]] == ["rejection_sampling"]


def test_a_cycle_for_practice_alone_has_the_usual_stages_and_learning_rate_unless_it_has_its_own() -> None:
    usual = LearnerSettings(practice=PracticeSettings(stages=()))
    assert usual.for_practice() == usual
    own = LearnerSettings(practice=PracticeSettings(learning_rate=1e-4))
    assert own.for_practice() == own.model_copy(update={"stages": own.practice.stages, "learning_rate": 1e-4})


async def test_generated_tasks_are_practised_and_none_that_a_gate_may_be_given(loop: Loop) -> None:
    holdout = HoldoutSettings()
    settings = with_practice(loop, generated=60).model_copy(update={"holdout": holdout})
    async with SandboxPool("toolbox", settings={"folder": str(HELPDESK)}) as pool:
        listed = await pool.tasks("helpdesk", "train")
        generating = replace(
            loop,
            settings=settings,
            pool=pool,
            tasks=listed,
            held_out=tuple(task for task in listed if holdout.split(task.task_id) is Split.SELECTION),
            generated=("helpdesk", "train"),
        )
        practised = {one.task_id for one in await Practice(generating).all_tasks()}
        wanted = TaskListSettings(selection_tasks=400, fresh_tasks=100)
        judged = {one.task_id for one in await generating.supply().tasks(pool, Counter(), holdout, wanted)}
    made = {generated_id("helpdesk", "train", seed) for seed in range(60)}
    assert practised & made
    assert judged & made
    assert not practised & judged
    assert {holdout.split(name) for name in practised} == {Split.TRAIN}
    assert practised - made == {one.task_id for one in listed if holdout.split(one.task_id) is Split.TRAIN}


async def test_a_round_ends_at_once_when_a_cycle_is_due(
    loop: Loop, served_store: ServedStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = asyncio.Event()

    async def forever(self: Practice) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    monkeypatch.setattr("daemon.learning.role._POLL_S", 0.0)
    monkeypatch.setattr(Practice, "play_round", forever)
    log, learner = Log(served_store.store), Learner(loop)
    practising = asyncio.create_task(learner.practise())
    log.publish(*practised("a", TRAIN[0]), *practised("b", TRAIN[0]), *practised("c", TRAIN[0], success=False))
    await practising
    assert ended.is_set()
    assert await learner.is_due()


async def test_practice_that_fails_is_told_and_tried_again_later(loop: Loop) -> None:
    learner, practice = Learner(loop), Practice(loop)
    with structlog.testing.capture_logs() as said:
        await learner.practise()
    assert [each["event"] for each in said if each["log_level"] == "error"] == ["practice failed"]
    with pytest.raises(Exception, match="did not answer"):
        await practice.play_round()
    assert not practice.is_wanted(), "it rests first"


@pytest.mark.usefixtures("faulty_environments")
async def test_a_round_ends_when_what_practises_is_unloaded_for_the_calls_of_another_group(
    loop: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    app, asked = FastAPI(), count(1)

    @app.get("/status")
    def status() -> StatusReport:
        # The first answer is the round's own; the second that before the first of its episodes.
        now = "ratchet-7" if next(asked) <= 2 else None
        nobody: dict[str, Any] = dict.fromkeys(("champion", "previous", "anchor"), "base")
        return StatusReport(
            alias="ratchet", served=now, in_flight=0, served_models=None, store=None, cycles=(), **nobody
        )

    @app.post("/v1/chat/completions")
    def chat(body: dict[str, Any]) -> dict[str, Any]:
        message = {"role": "assistant", "content": "sing"}
        told = [{"token": "sing", "logprob": -0.5}, {"token": "<|im_end|>", "logprob": -0.5}]
        choice = {"message": message, "finish_reason": "stop", "logprobs": {"content": told}}
        return {"model": body["model"], "choices": [choice]}

    published: list[Practised] = []

    async def publish(self: Practice, practised: Practised, key: bytes) -> None:
        published.append(practised)

    monkeypatch.setattr("daemon.learning.practice._ASK_EVERY_S", 0.0)
    monkeypatch.setattr(Practice, "_publish", publish)
    with served(app) as address, structlog.testing.capture_logs() as said:
        async with (
            PolicyClient(address) as policy,
            ControlClient(address) as control,
            SandboxPool("faulty_dark") as pool,
        ):
            tasks = tuple(Task(environment="faulty_dark", task_id=f"dark/train/{number}") for number in range(9))
            settings = with_practice(loop, concurrency=1)
            settings = settings.model_copy(update={"admission": AdmissionSettings(operator_key=SecretStr("a key"))})
            playing = replace(loop, policy=policy, control=control, pool=pool, tasks=tasks, settings=settings)
            played = await Practice(playing).play_round()
    assert played is not None
    assert (played.episodes, played.failures, len(published)) == (1, [], 1)
    assert "practice stops, for what practised is not served any more" in [each["event"] for each in said]


@pytest.mark.slow
async def test_a_round_goes_through_the_log_into_the_store_and_the_next_snapshot(
    tiny_base: Path, tmp_path: Path, faulty_environments: tuple[str, ...]
) -> None:
    settings = Settings(
        home=tmp_path,
        store=StoreSettings(port=free_port()),
        engine=EngineSettings(port=free_port(), threads=1),
        serving=ServingSettings(port=free_port(), reconcile_s=0.2),
        gate=GateSettings(min_tasks=4),
        domain=DomainSettings(environment="faulty_dark", suite="dark", out_of_domain_tasks=0),
        learner=LearnerSettings(practice=PRACTICE),
        # Practice is signed though no agent has its key.
        admission=AdmissionSettings(principals={"tenant": SecretStr("a key")}),
    ).settled()
    async with (
        Supervisor(settings, tiny_base, (Role.RECORD, Role.SERVE)) as supervisor,
        open_loop(supervisor.settings, tiny_base) as loop,
    ):

        async def serves() -> bool:
            return (await loop.control.status()).served is not None

        await eventually(serves)
        practice = Practice(loop)
        played = await practice.play_round()
        practice.close()
        assert played is not None
        assert (played.episodes, played.failures) == (4, [])

        async def is_stored() -> bool:
            return (await loop.store.status()).practice.episodes == 4

        await eventually(is_stored)
        status = await loop.store.status()
        counts = PracticeCounts(episodes=4, steps=played.steps, tasks={"hopeless": 2})
        assert status.practice == counts
        assert (status.quarantined, status.episodes, status.trusted) == (0, {}, {})
        snapshot = await build_snapshot(loop.store, loop.settings.holdout, tmp_path / "snapshots")
    trajectories = read_trajectories(snapshot.folder)
    assert {(one.origin, one.success, one.adapter) for one in trajectories} == {("practice", False, "base")}
    assert {loop.settings.holdout.split(one.task_id) for one in trajectories} == {Split.TRAIN}
    assert snapshot.manifest.episodes == {"practice_failed": 4}
