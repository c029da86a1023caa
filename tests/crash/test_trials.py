"""A learner that is killed at every point of a trial, and resumed each time, ends where one does that never was."""

import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI

from daemon.learning.loop import ACTOR
from daemon.registry.audit import Action
from daemon.registry.lifecycle import State
from daemon.registry.registry import Registry
from daemon.registry.schemas import BASE, Change, CycleReport, PromoteRequest, StatusReport
from evaluation.gates.verdict import Verdict
from evaluation.report import GATE_FILE, GateReport
from evaluation.rollout_log import Entry, read_rollouts, rollouts_path
from evaluation.rollouts import Rollout
from learners.snapshots import write_snapshot
from ratchet_client.crash_points import VARIABLE
from streams.trust.holdout import HoldoutSettings
from tests.builders.scripted import ScriptedServer
from tests.builders.trained import entered, trajectory
from tests.crash.victims import ROOT
from tests.served import served

TASKS = 16
# In this order on one trial, which comes a little further each time.
TRIAL = [
    *("trial.begin:before", "trial.begin:after"),
    *("trial.rollout:before", "trial.rollout:after@3", "trial.rollout:before@7", "trial.rollout:after"),
    *("trial.verdict:before", "trial.verdict:after", "trial.cycle:after"),
]

LEARNER = """
import asyncio, sys
from pathlib import Path
from daemon.config import DomainSettings, Settings
from daemon.learning.loop import Loop
from daemon.learning.resuming import resume, unfinished
from daemon.registry.registry import Registry
from daemon.serving.control_client import ControlClient
from evaluation.settings import GateSettings, RolloutSettings
from learners.adapters import AdapterStore
from streams.policy.client import PolicyClient
from streams.sandboxes.pool import SandboxPool
from streams.store.client import StoreClient
from streams.trust.holdout import HoldoutSettings

async def main(home, inference, control, count):
    gate = GateSettings(gates=("improvement",), min_tasks=count, rollouts=RolloutSettings(concurrency=1))
    holdout = HoldoutSettings(selection=1.0, confirmation=0.0)
    async with (
        StoreClient("http://127.0.0.1:9") as store, PolicyClient(inference) as policy,
        ControlClient(control) as client, SandboxPool("faulty_dark") as pool,
    ):
        tasks = (await pool.tasks("dark", "train"))[:count]
        loop = Loop(
            settings=Settings(
                home=home, gate=gate, holdout=holdout, domain=DomainSettings(environment="faulty_dark", suite="dark")
            ).settled(),
            base=home, registry=Registry(home), adapters=AdapterStore(home / "adapters"), store=store, policy=policy,
            control=client, pool=pool,
            tasks=tasks, held_out=tasks, out_of_domain=(),
        )
        left = unfinished(loop.registry.audit.read())
        if left is not None:
            await resume(loop, left, lambda *_: None)
        print("nothing left" if left is None else "finished")

asyncio.run(main(Path(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4])))
"""


@dataclass
class Home:
    """A home with one trained candidate, and what a learner in it asks. `run` runs the learner to its end or death."""

    folder: Path
    candidate: str
    inference: str
    control: str
    asked: list[tuple[str, str]]

    def run(self, crash_at: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", LEARNER, str(self.folder), self.inference, self.control, str(TASKS)],
            cwd=ROOT,
            env={**os.environ, VARIABLE: crash_at},
            capture_output=True,
            text=True,
            timeout=120,
        )

    @property
    def recorded(self) -> tuple[Entry, ...]:
        return read_rollouts(rollouts_path(self.folder, self.candidate, 1))

    def played(self) -> dict[tuple[bool, str], Rollout | None]:
        """What is recorded of the candidate and of the champion, by the tasks."""
        return {(entry.adapter == self.candidate, entry.task.task_id): entry.rollout for entry in self.recorded}

    @property
    def report(self) -> GateReport:
        path = self.folder / "adapters" / self.candidate / GATE_FILE
        return GateReport.model_validate_json(path.read_bytes())


@contextmanager
def home(folder: Path) -> Iterator[Home]:
    nothing_held_out = HoldoutSettings(selection=0.0, confirmation=0.0)
    snapshot = write_snapshot([trajectory(0)], nothing_held_out, folder / "snapshots", 1, {})
    registry, candidate = Registry(folder), entered(folder, snapshot)
    registry.enter(candidate, State.TRAINED, ACTOR, "trained")
    server = ScriptedServer(lambda model, first, turn: "sing" if model == BASE else "light")
    with server.running() as inference, served(control(registry)) as address:
        yield Home(folder, candidate, inference, address, server.asked)


def control(registry: Registry) -> FastAPI:
    """The part of the control API that a learner needs, over the real registry."""
    app = FastAPI()

    @app.get("/status")
    def status() -> Any:
        nothing: dict[str, Any] = {"served_models": None, "store": None, "cycles": ()}
        return StatusReport(
            alias="ratchet", champion=BASE, previous=BASE, anchor=BASE, served=BASE, in_flight=0, **nothing
        )

    @app.post("/cycles")
    def cycles(report: CycleReport) -> None:
        registry.record_cycle(report, ACTOR)

    @app.post("/promote")
    def promote(request: PromoteRequest) -> Change:
        registry.promote(request.digest, request.actor, request.reason)
        names = {"from_name": BASE, "to_name": request.digest}
        return Change(from_adapter=BASE, to_adapter=request.digest, seconds=0.0, **names)

    return app


@pytest.mark.nightly
@pytest.mark.usefixtures("faulty_environments")
def test_a_trial_that_is_killed_at_every_point_ends_as_one_that_is_not_and_plays_nothing_twice(tmp_path: Path) -> None:
    with home(tmp_path / "calm") as calm:
        done = calm.run()
        assert done.stdout.endswith("finished\n"), done.stderr
    with home(tmp_path / "stormy") as stormy:
        for place in TRIAL:
            dead = stormy.run(place)
            assert dead.returncode == -signal.SIGKILL, f"{place}: {dead.stdout}{dead.stderr}"
        assert stormy.run().stdout.endswith("finished\n")
        assert stormy.run().stdout.endswith("nothing left\n")

    assert stormy.report.verdict is calm.report.verdict is Verdict.PROMOTE
    assert [result.figures for result in stormy.report.gates] == [result.figures for result in calm.report.gates]
    # The order of the tasks is each candidate's own.
    tasks = [
        sorted(one.report.held_out.tasks, key=lambda row: row.task_id) for one in (stormy, calm) if one.report.held_out
    ]
    assert tasks[0] == tasks[1]

    for one in (calm, stormy):
        assert len({entry.key.text for entry in one.recorded}) == len(one.recorded)
        assert len(one.recorded) == 2 * TASKS
    assert stormy.played() == calm.played()
    # What was played and not yet written when it died is all that is played again.
    unwritten = sum(place.startswith("trial.rollout:before") for place in TRIAL)
    assert (len(calm.asked), len(stormy.asked)) == (2 * TASKS, 2 * TASKS + unwritten)

    entries = Registry(stormy.folder).audit.read()
    times = Counter(entry.action for entry in entries)
    assert (times[Action.RESERVED], times[Action.CYCLE], times[Action.PROMOTED]) == (1, 1, 1)
    assert Registry(stormy.folder).refs().champion == stormy.candidate
