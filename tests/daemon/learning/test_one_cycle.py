"""One turn of a learner, as `ratchet cycle` has it, and the lock that lets one learner work in a home."""

import asyncio
from pathlib import Path

import pytest
from typer.testing import CliRunner

from daemon.cli import app
from daemon.config import DomainSettings, Settings
from daemon.learning.loop import Loop
from daemon.learning.one_cycle import run_one, run_turn
from daemon.learning.role import Learner
from daemon.learning.sole import learner_in_turn, sole_learner
from daemon.registry.learner_status import LearnerPhase, learner_report, read_learner_status
from ratchet_client.errors import ConfigurationError
from streams.errors import LearnerRunsError, TrainingError
from streams.trust.holdout import Split
from tests.builders.episodes import TASKS, episode
from tests.builders.stored import Log, ServedStore
from tests.waiting import eventually

NEEDED = 2


async def test_nothing_is_run_while_too_little_is_new(loop: Loop, served_store: ServedStore) -> None:
    Log(served_store.store).publish(*episode("0", TASKS[Split.TRAIN][0]))
    ended = await run_turn(Learner(loop))
    assert (ended.cycle, ended.reason) == (None, f"1 of {NEEDED} new trusted episodes")
    assert not (loop.settings.home / "snapshots").exists()


async def test_a_cycle_that_is_due_waits_for_its_branches(
    loop: Loop, served_store: ServedStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    log, learner = Log(served_store.store), Learner(loop)
    for number in range(NEEDED):
        log.publish(*episode(str(number), TASKS[Split.TRAIN][number]))

    async def fail(*_: object) -> None:
        raise TrainingError("it began")

    monkeypatch.setattr("daemon.learning.role.run_cycle", fail)
    monkeypatch.setattr("daemon.learning.one_cycle._POLL_S", 0.05)
    turn = asyncio.create_task(run_turn(learner))

    async def waits() -> bool:
        return learner.status.phase is LearnerPhase.BRANCHES

    await eventually(waits)
    for number in range(NEEDED):
        for step in (0, 1):
            log.branched(str(number), TASKS[Split.TRAIN][number], step)
    with pytest.raises(TrainingError, match="it began"):
        await turn


async def test_a_second_learner_is_refused_and_the_learn_role_waits_for_its_turn(tmp_path: Path) -> None:
    settings, stop = Settings(home=tmp_path, domain=DomainSettings(recorded=True)).settled(), asyncio.Event()
    with sole_learner(tmp_path):
        with pytest.raises(LearnerRunsError, match="another learner works in"):
            await run_one(settings, stop)
        assert read_learner_status(tmp_path) is None, "the other one tells what it is at"

        async def role() -> bool:
            async with learner_in_turn(tmp_path, stop) as has_turn:
                return has_turn

        waiting = asyncio.create_task(role())
        await asyncio.sleep(0.1)
        assert not waiting.done()
    assert await waiting
    with sole_learner(tmp_path):
        waiting = asyncio.create_task(role())
        await asyncio.sleep(0.1)
        stop.set()
        assert not await waiting


def test_the_status_says_that_another_learner_works_in_the_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RATCHET_HOME", str(tmp_path))
    monkeypatch.setenv("RATCHET_DOMAIN__RECORDED", "true")
    with sole_learner(tmp_path):
        assert CliRunner().invoke(app, ["cycle"]).exit_code == 3


async def test_without_a_domain_it_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="domain"):
        await run_one(Settings(home=tmp_path).settled(), asyncio.Event())


async def test_a_cycle_that_fails_is_told_as_such(tiny_base: Path, tmp_path: Path) -> None:
    # A candidate that is judged by recorded states alone needs a canary.
    settings = Settings(home=tmp_path, model=str(tiny_base), domain=DomainSettings(recorded=True)).settled()
    with pytest.raises(ConfigurationError, match="canary"):
        await run_one(settings, asyncio.Event())
    report = learner_report(tmp_path, ())
    assert (report.running, report.is_finished) == (False, False)
    assert report.status is not None
    assert "canary" in report.status.error
