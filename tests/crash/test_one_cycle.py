"""`ratchet cycle` that is killed changes nothing that serves, and the next one resumes it and ends it."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from daemon.learning.loop import open_loop
from daemon.registry.audit import Action
from daemon.registry.learner_status import LearnerPhase, learner_report, read_learner_status
from daemon.registry.lifecycle import State
from daemon.registry.registry import AUDIT_FILE, REFS_FILE, Registry
from daemon.registry.schemas import BASE
from daemon.registry.verifying import verify
from daemon.roles import Role
from daemon.supervisor import Supervisor
from evaluation.gates.verdict import Verdict
from evaluation.rollout_log import read_rollouts, rollouts_path
from learners.settings import CHECKPOINT
from streams.runtime.processes import die_with_parent
from tests.crash.victims import ROOT
from tests.daemon.learning.test_cycle import QUICK, dark_settings, demonstrate
from tests.waiting import eventually

DEMONSTRATED = 12
WITHIN_S = 240


class Home:
    """A home, and `ratchet cycle` in it as processes of their own."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self.folder = folder
        self._environment = os.environ | environment

    def begin(self) -> subprocess.Popen[str]:
        parent, pipe = os.getpid(), subprocess.PIPE
        return subprocess.Popen(
            [sys.executable, "-m", "daemon.cli", "cycle", "--json"],
            cwd=ROOT,
            env=self._environment,
            stdout=pipe,
            stderr=pipe,
            text=True,
            preexec_fn=lambda: die_with_parent(parent),
        )

    async def run(self) -> tuple[dict[str, Any], str]:
        """What it says of the one group when it runs to its end, and its log."""
        running = self.begin()
        said, log = await asyncio.to_thread(running.communicate, timeout=WITHIN_S)
        assert running.returncode == 0, log
        (group,) = json.loads(said)["groups"]
        return group, log

    async def end(self, number: signal.Signals, when: Callable[[], bool]) -> int:
        """Begin one, and send it the signal once it has told something and `when` holds; its exit status."""
        earlier, running = self._told(), self.begin()

        async def is_time() -> bool:
            assert running.poll() is None, running.stderr and running.stderr.read()
            return self._told() != earlier and when()

        try:
            await eventually(is_time, "the cycle comes so far", within_s=WITHIN_S)
            running.send_signal(number)
            await asyncio.to_thread(running.communicate, timeout=60)
        finally:
            running.kill()
        return running.returncode

    def trains(self) -> bool:
        """Whether there is a checkpoint to go on from, and the training has not ended."""
        status = read_learner_status(self.folder)
        is_training = status is not None and status.phase is LearnerPhase.TRAINING
        return is_training and any((self.folder / "training").glob(f"*/{CHECKPOINT}"))

    def _told(self) -> datetime | None:
        """When the learner told something last."""
        status = read_learner_status(self.folder)
        return None if status is None else status.beat_at

    def plays(self) -> bool:
        """Whether an episode of the trial is recorded."""
        candidates = [entry.subject for entry in Registry(self.folder).audit.read() if entry.state is State.EVALUATING]
        return any(len(read_rollouts(rollouts_path(self.folder, one, 1))) > 0 for one in candidates)

    def serving(self) -> tuple[bytes, str]:
        """The refs as they are on disk, and the champion."""
        path = self.folder / REFS_FILE
        return path.read_bytes() if path.exists() else b"", Registry(self.folder).refs().champion


@pytest.mark.slow
@pytest.mark.usefixtures("faulty_environments")
async def test_a_cycle_that_is_killed_leaves_what_serves_and_the_next_goes_on_to_its_end(
    tiny_base: Path, tmp_path: Path
) -> None:
    # There is no branch role to wait for.
    parts = {"min_new_episodes": DEMONSTRATED, "checkpoint_every": 4, "branch_patience_s": 0.0}
    learner = QUICK.model_copy(update=parts)
    settings = dark_settings(tmp_path).model_copy(update={"learner": learner, "model": str(tiny_base)})
    async with Supervisor(settings, tiny_base, (Role.RECORD, Role.SERVE)) as supervisor:
        home = Home(tmp_path, supervisor.settings.to_environment())
        async with open_loop(supervisor.settings, tiny_base) as loop:
            await asyncio.to_thread(demonstrate, loop, DEMONSTRATED)

            async def is_trusted() -> bool:
                return sum((await loop.store.status()).trusted.values()) == DEMONSTRATED

            await eventually(is_trusted)
            before = home.serving()
            for number, when in (
                (signal.SIGKILL, home.trains),
                (signal.SIGTERM, home.trains),
                (signal.SIGKILL, home.plays),
            ):
                log = (tmp_path / AUDIT_FILE).read_bytes() if (tmp_path / AUDIT_FILE).exists() else b""
                status = await home.end(number, when)
                assert status == (130 if number is signal.SIGTERM else -signal.SIGKILL)
                assert home.serving() == before
                assert verify(tmp_path).findings == ()
                assert (tmp_path / AUDIT_FILE).read_bytes().startswith(log)
                assert (await loop.control.status()).champion == BASE

            group, said = await home.run()
            assert "a trial is resumed" in said
            served = await loop.control.status()
        assert group["cycle"]["verdict"] == Verdict.PROMOTE, group
        assert served.champion == group["cycle"]["adapter"]
        again, _ = await home.run()
        assert again["cycle"] is None
        assert again["reason"] == f"0 of {DEMONSTRATED} new trusted episodes"
        assert learner_report(tmp_path, ()).is_finished
    assert verify(tmp_path).findings == ()
    entries = Registry(tmp_path).audit.read()
    assert [entry.subject for entry in entries if entry.action is Action.CYCLE] == [served.champion]
    assert len(list((tmp_path / "snapshots").iterdir())) == 1, "the training went on from its checkpoint"
