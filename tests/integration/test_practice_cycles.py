"""Cycle after cycle of practice alone: `ratchet run` without an agent, a demonstration or an operator."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from daemon.config import DomainSettings, EngineSettings, Settings
from daemon.registry.schemas import BASE
from daemon.roles import Role
from daemon.serving.control_client import ControlClient
from daemon.serving.settings import ServingSettings
from daemon.supervisor import Supervisor
from evaluation.gates.verdict import Verdict
from evaluation.settings import GateSettings
from learners.adapters import AdapterStore
from learners.settings import LearnerSettings, LoraSettings, PracticeSettings, Stage
from streams.runtime.processes import free_port
from streams.store.client import StoreClient
from streams.store.settings import StoreSettings
from tests.waiting import eventually

STAGES = (Stage(objective="rejection_sampling", updates=60, trajectories=4),)


def asked(settings: Settings, *arguments: str) -> object:
    """What a command of `ratchet` prints as JSON."""
    command = [sys.executable, "-m", "daemon.cli", *arguments, "--json"]
    return json.loads(subprocess.check_output(command, env=os.environ | settings.to_environment()))


@pytest.mark.parametrize(
    "count", [pytest.param(2, marks=pytest.mark.slow), pytest.param(4, marks=[pytest.mark.slow, pytest.mark.nightly])]
)
@pytest.mark.nightly
async def test_what_serves_practises_is_trained_on_it_judged_and_promoted_and_practises_again(
    count: int, tiny_base: Path, tmp_path: Path, faulty_environments: tuple[str, ...]
) -> None:
    settings = Settings(
        home=tmp_path,
        model=str(tiny_base),
        store=StoreSettings(port=free_port()),
        engine=EngineSettings(port=free_port(), threads=1),
        serving=ServingSettings(port=free_port(), reconcile_s=0.2),
        # Of 150 tasks some 45 are of the selection split, too few for the first alpha of many gates.
        gate=GateSettings(gates=("improvement",), min_tasks=30, spending="constant"),
        domain=DomainSettings(environment="faulty_lottery", suite="lottery", out_of_domain_tasks=0),
        learner=LearnerSettings(
            lora=LoraSettings(rank=8, alpha=16),
            learning_rate=2e-2,
            threads=1,
            practice=PracticeSettings(enabled=True, tasks=8, samples=4, rest_s=0, min_new_episodes=4, stages=STAGES),
        ),
    ).settled()
    async with (
        Supervisor(settings, tiny_base, (Role.RECORD, Role.LEARN, Role.SERVE)) as supervisor,
        ControlClient(settings.control_url) as control,
        StoreClient(settings.store_url) as store,
    ):

        async def have_run() -> bool:
            cycles = (await control.status()).cycles
            promoted = [number for number, cycle in enumerate(cycles, 1) if cycle.verdict is Verdict.PROMOTE]
            return len(cycles) >= count and bool(promoted) and promoted[0] < len(cycles)

        await eventually(have_run, f"{count} cycles have run, one of them after a promotion", within_s=600)
        names = "SELECT DISTINCT adapter FROM practised ORDER BY ALL"

        async def practises_again() -> bool:
            return len(await players(store, names)) >= 2

        await eventually(practises_again)
        status = await control.status()
        stored = await store.status()
        shown, told = asked(supervisor.settings, "status"), asked(supervisor.settings, "history", "--limit", "500")

    promoted = [cycle for cycle in status.cycles if cycle.verdict is Verdict.PROMOTE]
    assert promoted, [cycle.reason for cycle in status.cycles]
    first = promoted[0]
    assert first.champion == BASE
    assert first.candidate_success is not None
    assert first.champion_success is not None
    assert first.candidate_success > first.champion_success
    adapters = AdapterStore(tmp_path / "adapters")
    manifests = [adapters.manifest(cycle.adapter) for cycle in status.cycles]
    assert {manifest.settings.stages for manifest in manifests} == {STAGES}
    assert {kind for manifest in manifests for kind in manifest.snapshot.episodes} == {"practice", "practice_failed"}
    later = [one for one, cycle in zip(manifests, status.cycles, strict=True) if cycle.cycle > first.cycle]
    assert later
    assert {manifest.parent for manifest in later} <= {cycle.adapter for cycle in promoted}
    assert (stored.episodes, stored.trusted) == ({}, {})
    # Success by cycle is in both commands.
    by_cycle = [[cycle.cycle, cycle.champion_success, cycle.candidate_success] for cycle in status.cycles]
    keys = ("cycle", "champion_success", "candidate_success")
    assert isinstance(shown, dict)
    assert isinstance(told, list)
    assert [[each[key] for key in keys] for each in shown["cycles"]][: len(by_cycle)] == by_cycle
    recorded = [entry["cycle"] for entry in told if "cycle" in entry]
    assert [[each[key] for key in keys] for each in recorded][: len(by_cycle)] == by_cycle


async def players(store: StoreClient, names: str) -> list[str]:
    return [row["adapter"] for row in (await store.query(names)).to_pylist()]
