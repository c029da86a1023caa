"""One whole cycle over the real broker, store, sandboxes, inference server and trainer."""

import itertools
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from daemon.config import DomainSettings, EngineSettings, Settings
from daemon.console import Narrator
from daemon.demo.demo import Demo
from daemon.demo.plan import DemoPlan
from daemon.learning.cycle import Loop, Phase, open_loop, run_cycle
from daemon.learning.role import Learner
from daemon.registry.audit import Action
from daemon.registry.lifecycle import State
from daemon.registry.schemas import BASE
from daemon.roles import Role
from daemon.serving.role import ServingSettings
from daemon.supervisor import Supervisor
from evaluation.gates.significance import Verdict
from evaluation.report import GATE_FILE
from evaluation.settings import GateSettings
from learners.settings import LearnerSettings, LoraSettings, Stage
from learners.snapshots import read_trajectories
from streams.runtime.processes import free_port
from streams.store.settings import StoreSettings
from streams.trust.holdout import Split

DEMONSTRATIONS = 3
GATE_TASKS = 4
LEARNER = LearnerSettings(
    stages=(Stage(objective="world_model", updates=1), Stage(objective="imitation", updates=1)),
    lora=LoraSettings(rank=2, alpha=4),
    threads=1,
    min_new_episodes=DEMONSTRATIONS,
)


@pytest.fixture
async def loop(tiny_base: Path, tmp_path: Path) -> AsyncIterator[Loop]:
    """A running Ratchet whose gates play few tasks."""
    settings = Settings(
        home=tmp_path,
        learner=LEARNER,
        store=StoreSettings(port=free_port()),
        engine=EngineSettings(port=free_port(), threads=1),
        serving=ServingSettings(port=free_port(), reconcile_s=0.2),
        gate=GateSettings(min_tasks=GATE_TASKS),
        domain=DomainSettings(out_of_domain_tasks=2),
    ).settled()
    async with (
        Supervisor(settings, tiny_base, (Role.RECORD, Role.BRANCH, Role.SERVE)) as supervisor,
        open_loop(supervisor.settings, tiny_base) as opened,
    ):
        yield replace(opened, held_out=opened.held_out[:GATE_TASKS])


@pytest.mark.slow
async def test_a_cycle_ends_in_a_verdict_and_what_is_not_proved_better_does_not_serve(loop: Loop) -> None:
    tasks = (task for task in loop.tasks if loop.settings.holdout.split(task.task_id) is Split.TRAIN)
    demo = Demo(DemoPlan.quick(0), Narrator(), loop, tasks)
    learner = Learner(loop)
    assert not await learner.is_due()
    await demo.play("expert", DEMONSTRATIONS)
    assert await learner.is_due()

    told: list[tuple[Phase, int, int]] = []
    report = await run_cycle(loop, LEARNER, lambda phase, done, total, _: told.append((phase, done, total)))

    assert report.verdict is Verdict.INCONCLUSIVE
    assert (report.champion, report.tasks, report.cycle) == (BASE, GATE_TASKS, 1)
    ends = {Phase.TRAINING: 2, Phase.GATE: 2 * GATE_TASKS, Phase.OUT_OF_DOMAIN: 4}
    assert {phase: total for phase, done, total in told if done == total} == ends
    assert [phase for phase, _ in itertools.groupby(told, lambda one: one[0])] == list(Phase)

    status = await loop.control.status()
    assert (status.champion, status.previous, status.served) == (BASE, BASE, "base")
    assert status.served_models == ("base",)
    assert status.cycles == (report,)
    assert not await learner.is_due()

    manifest = loop.adapters.manifest(report.adapter)
    assert manifest.snapshot.episodes == {"expert": DEMONSTRATIONS}
    assert manifest.snapshot.branches > 0
    learned = read_trajectories(loop.settings.home / "snapshots" / manifest.snapshot.snapshot_id)
    assert all(loop.settings.holdout.split(one.task_id) is Split.TRAIN for one in learned)
    gate = json.loads((loop.adapters.folder(report.adapter) / GATE_FILE).read_text())
    assert gate["verdict"] == Verdict.INCONCLUSIVE

    entries = [entry for entry in loop.registry.audit.read() if entry.subject == report.adapter]
    states = [entry.state for entry in entries if entry.action is Action.MOVED]
    assert states == [State.TRAINED, State.EVALUATING, State.INCONCLUSIVE]
    assert entries[-1].action is Action.CYCLE
    assert Action.PROMOTED not in {entry.action for entry in entries}
