"""What gates and A/A runs measured, from the files of a home folder, and the commands that show and set it."""

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from daemon.cli import app
from daemon.learning.anchor import served_anchor
from daemon.learning.measured import AARun, agreement_of_plays, flips_so_far, keep_aa_run, measured
from daemon.registry.lifecycle import State
from daemon.registry.registry import Registry
from evaluation.agreement import Agreement
from evaluation.gates.verdict import Verdict
from evaluation.report import GATE_FILE, GateReport
from evaluation.settings import GateSettings
from learners.adapters import AdapterStore
from learners.snapshots import write_snapshot
from streams.policy.client import PolicyClient
from streams.trust.holdout import HoldoutSettings
from tests.builders.trained import entered, trajectory
from tests.builders.trials import evidence, pairs, rollout, tasks


def report(home: Path, adapter: str, champion: list[bool], candidate: list[bool]) -> None:
    trial = evidence()
    trial.pairs += pairs(champion, candidate)
    GateReport.of(trial, Verdict.INCONCLUSIVE, "r", GateSettings()).write(home / "adapters" / adapter)


def ask(*arguments: str) -> Result:
    return CliRunner().invoke(app, [*arguments])


def test_pairs_of_all_gates_and_replays_of_one_champion_are_counted(tmp_path: Path) -> None:
    assert measured(tmp_path).flip_rate is None
    report(tmp_path, "b" * 64, [True, True, False, False], [True, False, True, False])
    report(tmp_path, "c" * 64, [True, False, False, False], [True, True, True, True])
    found = measured(tmp_path)
    assert (found.gates, found.pairs.tasks) == (2, 8)
    assert found.pairs == Agreement(both=2, first_only=1, second_only=4, neither=1)
    # The champion is the same: of four tasks that it played twice it solved one only once.
    assert (found.flips.tasks, found.flip_rate) == (4, 0.25)
    assert (found.assumed_phi, found.assumed_flip_rate) == (0.54, 0.03)


def test_runs_of_one_adapter_against_itself_add_up(tmp_path: Path) -> None:
    plays = [[rollout(task, task.seed != flipped) for task in tasks(10)] for flipped in (0, 0, 3)]
    agreement = agreement_of_plays(plays)
    assert (agreement.tasks, agreement.discordant) == (20, 2)
    for _ in range(2):
        keep_aa_run(tmp_path, AARun(adapter="base", at=datetime.now(UTC), tasks=10, plays=3, agreement=agreement))
    assert measured(tmp_path).flip_rate == 0.1


def test_a_damaged_report_fails_no_later_trial(tmp_path: Path) -> None:
    (tmp_path / "adapters" / "b").mkdir(parents=True)
    (tmp_path / "adapters" / "b" / GATE_FILE).write_text("{}")
    assert flips_so_far(tmp_path) is None


def test_the_report_has_the_measurements_beside_the_assumptions_and_warns_of_success_that_selected(
    tmp_path: Path,
) -> None:
    trial = evidence()
    trial.pairs += pairs([True, False, False], [True, True, False])
    made = GateReport.of(
        trial, Verdict.PROMOTE, "r", GateSettings(), flips=Agreement(both=96, first_only=2, second_only=2)
    )
    text = made.to_markdown()
    assert "(phi): 0.50, assumed 0.54" in text
    assert "differed from itself on 4.0% of 100 tasks, assumed 3%" in text
    assert "do not quote them" in text


def test_the_command_shows_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RATCHET_HOME", str(tmp_path))
    report(tmp_path, "b" * 64, [True, True, False, False], [True, False, False, False])
    shown = json.loads(ask("gate", "stats", "--json").stdout.splitlines()[-1])
    assert (shown["pairs"]["both"], shown["assumed_phi"]) == (1, 0.54)
    assert "nothing yet" in ask("gate", "stats").stdout
    assert ask("gate", "tenant", "helpdesk/clerk").stdout.startswith("tenant ")


async def test_an_operator_sets_the_anchor_with_a_reason_and_one_that_cannot_be_loaded_says_so(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RATCHET_HOME", str(registry.home))
    nothing = HoldoutSettings(selection=0.0, confirmation=0.0)
    snapshot = write_snapshot([trajectory(0)], nothing, registry.home / "snapshots", 7, {"events/0": 9}, 3)
    adapter = entered(registry.home, snapshot, None)
    assert ask("anchor", "set", adapter[:12], "--reason", "the release").exit_code != 0
    for state in (State.TRAINED, State.EVALUATING, State.APPROVED):
        registry.enter(adapter, state, "learner", "a test")
    registry.promote(adapter, "anna", "better")
    assert ask("anchor", "set", "champion").exit_code == 2
    assert ask("anchor", "set", "champion", "--reason", " ").exit_code == 2
    done = ask("anchor", "set", "champion", "--reason", "the release")
    assert done.exit_code == 0, done.output
    assert registry.refs().anchor == adapter
    assert registry.audit.read()[-1].reason == "the release"
    assert ask("anchor", "set", "base", "--reason", "hold it against the base").exit_code == 0
    assert registry.refs().anchor == "base"
    async with PolicyClient("http://127.0.0.1:9") as nowhere:
        registry.set_anchor(adapter, "anna", "the release")
        async with served_anchor(registry, AdapterStore(registry.home / "adapters"), nowhere, (), "learner") as anchor:
            assert anchor.adapter == adapter
            assert "did not answer" in anchor.missing
