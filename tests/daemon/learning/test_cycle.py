"""Whole cycles over the real broker, store, sandboxes, inference server and trainer."""

import asyncio
import itertools
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from daemon.config import DomainSettings, EngineSettings, Settings
from daemon.console import Narrator
from daemon.demo.demo import Demo
from daemon.demo.text_game import TEXT_GAME, TWC
from daemon.learning.cycle import run_cycle
from daemon.learning.loop import Loop, Phase, open_loop
from daemon.learning.role import Learner
from daemon.registry.audit import Action
from daemon.registry.lifecycle import State
from daemon.registry.schemas import BASE
from daemon.roles import Role
from daemon.serving.settings import ServingSettings
from daemon.supervisor import Supervisor
from evaluation.gates.verdict import Verdict
from evaluation.report import GATE_FILE
from evaluation.settings import CollapseSettings, GateSettings, NoForgettingSettings
from learners.settings import LearnerSettings, LoraSettings, Stage
from learners.snapshots import read_trajectories
from ratchet_client.events import Actor
from ratchet_client.messages import assistant, user
from ratchet_client.producer import Producer
from streams.policy.client import PolicyClient, Sampling
from streams.runtime.processes import free_port
from streams.store.settings import StoreSettings
from streams.trust.holdout import Split
from tests.faulty import ratchet_faulty
from tests.waiting import eventually

DEMONSTRATIONS = 3
GATE_TASKS = 4
LEARNER = LearnerSettings(
    stages=(Stage(objective="world_model", updates=1), Stage(objective="imitation", updates=1)),
    lora=LoraSettings(rank=2, alpha=4),
    threads=1,
    min_new_episodes=DEMONSTRATIONS,
)
DARK = ratchet_faulty.Dark.harness
QUICK = LearnerSettings(
    stages=(Stage(objective="imitation", updates=40),),
    lora=LoraSettings(rank=8, alpha=16),
    learning_rate=5e-3,
    threads=1,
)


def settings_of(home: Path, **parts: Any) -> Settings:
    return Settings(
        home=home,
        store=StoreSettings(port=free_port()),
        engine=EngineSettings(port=free_port(), threads=1),
        serving=ServingSettings(port=free_port(), reconcile_s=0.2),
        **parts,
    ).settled()


@pytest.fixture
async def loop(tiny_base: Path, tmp_path: Path) -> AsyncIterator[Loop]:
    """A running Ratchet whose gates play few tasks."""
    settings = settings_of(
        tmp_path,
        learner=LEARNER,
        gate=GateSettings(min_tasks=GATE_TASKS),
        domain=TWC.model_copy(update={"out_of_domain_tasks": 2}),
    )
    async with (
        Supervisor(settings, tiny_base, (Role.RECORD, Role.BRANCH, Role.SERVE)) as supervisor,
        open_loop(supervisor.settings, tiny_base) as opened,
    ):
        yield replace(opened, held_out=opened.held_out[:GATE_TASKS])


def dark_settings(home: Path, **parts: Any) -> Settings:
    """Settings for an environment in which one action, which the base model never takes, solves every task."""
    return settings_of(
        home,
        learner=QUICK,
        # It has ten selection tasks, which are no proof at the first alpha of many gates, and four for confirmation.
        # The tiny base model knows nothing: to it every word is as unlikely as one that is drawn at random.
        gate=GateSettings(
            # One word solves every task, which is what sentinels look for.
            gates=("improvement", "no_forgetting", "golden", "slices", "collapse", "memorisation"),
            min_tasks=8,
            spending="constant",
            no_forgetting=NoForgettingSettings(min_tasks=4),
            collapse=CollapseSettings(max_kl_to_base=12),
        ),
        domain=DomainSettings(environment="faulty_dark", suite="dark", out_of_domain_tasks=0),
        **parts,
    )


@pytest.fixture
async def dark_loop(tiny_base: Path, tmp_path: Path, faulty_environments: tuple[str, ...]) -> AsyncIterator[Loop]:
    """A running Ratchet for that environment."""
    settings = dark_settings(tmp_path)
    async with (
        Supervisor(settings, tiny_base, (Role.RECORD, Role.SERVE)) as supervisor,
        open_loop(supervisor.settings, tiny_base) as opened,
    ):
        yield opened


@pytest.mark.nightly
async def test_a_cycle_ends_in_a_verdict_and_an_inconclusive_candidate_does_not_serve(loop: Loop) -> None:
    tasks = (task for task in loop.tasks if loop.settings.holdout.split(task.task_id) is Split.TRAIN)
    demo = Demo(TEXT_GAME.quick(0), Narrator(), loop, tasks, TEXT_GAME)
    learner = Learner(loop)
    assert not await learner.is_due()
    await demo.play("expert", DEMONSTRATIONS)
    await demo.digested()
    assert await learner.is_due()

    told: list[tuple[Phase, int, int]] = []
    report = await run_cycle(loop, LEARNER, lambda phase, done, total, _: told.append((phase, done, total)))

    assert report.verdict is Verdict.INCONCLUSIVE
    assert (report.champion, report.tasks, report.cycle) == (BASE, GATE_TASKS, 1)
    # What gates have stopped plays nothing out of domain.
    ends = {Phase.TRAINING: 2, Phase.GATE: 2 * GATE_TASKS}
    assert {phase: total for phase, done, total in told if done == total} == ends
    assert [phase for phase, _ in itertools.groupby(told, lambda one: one[0])] == list(ends)

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


@pytest.mark.slow
async def test_a_candidate_that_is_significantly_better_is_promoted_and_serves(dark_loop: Loop) -> None:
    loop, settings = dark_loop, dark_loop.settings
    await asyncio.to_thread(demonstrate, loop, 12)

    async def is_trusted() -> bool:
        return sum((await loop.store.status()).trusted.values()) == 12

    await eventually(is_trusted)
    report = await run_cycle(loop, settings.learner, lambda *_: None)

    assert (report.verdict, report.champion) == (Verdict.PROMOTE, BASE), report.reason
    assert (report.champion_success, report.candidate_success) == (0.0, 1.0)
    improvement, *others = report.gates
    assert [result.gate for result in others] == list(settings.gate.gates[1:])
    assert {result.verdict for result in report.gates} == {Verdict.PROMOTE}
    p_better, alpha = improvement.figures["p_better"], improvement.figures["alpha"]
    assert isinstance(p_better, float)
    assert isinstance(alpha, float)
    assert p_better <= alpha / 2
    reserved = [entry for entry in loop.registry.audit.read() if entry.reserved is not None]
    assert [(entry.subject, entry.reserved.alpha) for entry in reserved if entry.reserved] == [(report.adapter, alpha)]

    status = await loop.control.status()
    assert (status.champion, status.previous) == (report.adapter, BASE)
    assert status.holdout is not None
    assert (status.holdout.trials, status.holdout.fresh) == (1, 0)
    assert status.holdout.uses == {"selection": 10, "confirmation": 4}
    assert status.served is not None
    assert status.served.endswith(report.adapter[:12])
    entries = [entry for entry in loop.registry.audit.read() if entry.subject == report.adapter]
    assert [entry.state for entry in entries if entry.action is Action.MOVED] == [
        State.TRAINED,
        State.EVALUATING,
        State.APPROVED,
    ]
    assert Action.PROMOTED in {entry.action for entry in entries}

    async with PolicyClient(loop.settings.control_url) as gateway:
        opening = DARK.opening((user("It is dark. You are at 0."),))
        (reply,) = await gateway.chat(settings.serving.alias, opening, Sampling().within(DARK.max_tokens, DARK.stop))
    assert reply.message.text.startswith("light")
    assert reply.model == status.served


def demonstrate(loop: Loop, count: int, principal: str = "tenant", behind: int = 0) -> None:
    """An expert solves so many tasks of the train split, behind the first ones, for a principal."""
    tasks = [task for task in loop.tasks if loop.settings.holdout.split(task.task_id) is Split.TRAIN]
    kafka = loop.settings.kafka
    with Producer(kafka.bootstrap, agent="agent", principal=principal, topic=kafka.events_topic) as producer:
        for task in tasks[behind : behind + count]:
            episode = producer.episode(task, Actor(kind="expert"))
            opening = DARK.opening((user("It is dark. You are at 0."),))
            assert episode.step(opening, assistant("light"), "Light! You are at 0.", done=True)
            assert episode.outcome(verifier="game", success=True, score=1.0)
