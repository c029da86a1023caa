"""`ratchet why`, from the files of a home folder alone."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from daemon.cli import app
from daemon.learning.why import WhyReport, find
from daemon.registry.lifecycle import State
from daemon.registry.registry import Mark, Registry
from learners.adapters import AdapterStore
from learners.canaries import PRINCIPAL, draw_canaries
from learners.snapshots import write_snapshot
from ratchet_client.errors import RatchetError
from streams.errors import UnknownAdapterError
from streams.trust.holdout import HoldoutSettings
from streams.trust.rules import withdrawal_id
from tests.builders.trained import entered, trajectory

NOTHING_HELD_OUT = HoldoutSettings(selection=0.0, confirmation=0.0)


@pytest.fixture
def family(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> tuple[str, str]:
    """The digests of a parent that saw ann and of its child that saw bob twice."""
    monkeypatch.setenv("RATCHET_HOME", str(registry.home))
    digests: list[str] = []
    for names in (("ann",), ("bob", "bob")):
        trajectories = [replace(trajectory(number), principals=(name,)) for number, name in enumerate(names)]
        snapshot = write_snapshot(trajectories, NOTHING_HELD_OUT, registry.home / "snapshots", 7, {"events/0": 9}, 3)
        digests.append(entered(registry.home, snapshot, digests[0] if digests else None))
    registry.enter(digests[1], State.TRAINED, "learner", "a test")
    return digests[0], digests[1]


def ask(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["why", *arguments])


def report(name: str) -> WhyReport:
    # Without `main` around it, the log goes to stdout too.
    return WhyReport.model_validate_json(ask(name, "--json").stdout.splitlines()[-1])


def test_an_adapter_tells_its_parents_its_snapshot_and_whose_data_it_saw(family: tuple[str, str]) -> None:
    parent, child = family
    found = report(child)
    assert (found.adapter, found.parents, found.state, found.serves) == (child, (parent,), State.TRAINED, False)
    assert (found.principals, found.inherited) == ({"bob": 2}, {"ann": 1})
    assert (found.snapshot.as_of, found.snapshot.retracted_as_of) == (7, 3)
    assert found.snapshot.offsets == {"events/0": 9}
    assert found.snapshot.episodes == {"expert": 2}
    assert [stage.objective for stage in found.settings.stages] == ["world_model", "imitation"]
    assert (found.gates, found.retrain) == ((), ())
    assert report(parent).inherited == {}


def test_the_table_shows_it_to_people(family: tuple[str, str]) -> None:
    parent, child = family
    shown = ask(child).output
    for words in (parent[:12], "bob (2)", "ann (1)", "2 of actor expert", "updates of imitation"):
        assert words in shown


def test_the_reverse_query_lists_the_adapters_trained_on_a_principals_data(family: tuple[str, str]) -> None:
    parent, child = family
    saw = {one["adapter"]: one["seen_by"] for one in json.loads(ask("--principal", "ann", "--json").stdout)}
    assert saw == {parent: parent, child: parent}
    assert json.loads(ask("--principal", "eve", "--json").stdout) == []
    assert parent[:12] in ask("--principal", "ann").output


def test_the_states_of_an_adapter_are_told_with_who_decided_and_why(
    family: tuple[str, str], registry: Registry
) -> None:
    child = family[1]
    registry.enter(child, State.EVALUATING, "learner", "to be played")
    registry.enter(child, State.HELD, "learner", "It repeats one action.")
    registry.approve(child, "anna", "I read [/its] episodes")
    told = [(entry.state, entry.actor) for entry in report(child).states]
    assert told == [
        *((state, "learner") for state in (State.TRAINED, State.EVALUATING, State.HELD)),
        *((state, "anna") for state in (State.APPROVED, State.SERVING)),
    ]
    shown = " ".join(ask(child).output.replace("│", " ").split())
    assert "by anna: I read [/its] episodes" in shown


def test_marked_adapters_are_shown_as_marked(family: tuple[str, str], registry: Registry) -> None:
    registry.mark_for_retraining([Mark(family[1], "event-1", "ann revoked consent")], "ann")
    assert report(family[1]).retrain == ("event-1",)
    assert "by retraction event-1" in ask(family[1]).output
    registry.mark_for_retraining([Mark(family[1], withdrawal_id("run-1"), "it failed later")], "ann")
    assert f"by lost trust {withdrawal_id('run-1')}" in " ".join(ask(family[1]).output.replace("│", " ").split())


def test_deleted_snapshots_are_reported_as_unknown(family: tuple[str, str], registry: Registry) -> None:
    shutil.rmtree(registry.home / "snapshots")
    found = report(family[1])
    assert (found.principals, found.inherited) == (None, None)
    assert "files are gone" in ask(family[1]).output


def test_an_adapter_is_found_by_digest_digest_prefix_served_name_or_the_word_champion(
    family: tuple[str, str], registry: Registry
) -> None:
    adapters = AdapterStore(registry.home / "adapters")
    child = family[1]
    for state in (State.EVALUATING, State.APPROVED):
        registry.enter(child, state, "learner", "a test")
    registry.promote(child, "learner", "it won")
    for name in (child, child[:8], f"ratchet-7-{child[:12]}", "champion"):
        assert find(name, registry, adapters) == child


@pytest.mark.parametrize("name", ["", "abc", "base", "champion", "f" * 64, "ratchet-7-ffffffffffff"])
def test_a_name_that_matches_no_adapter_is_one_clear_error(
    name: str, family: tuple[str, str], registry: Registry
) -> None:
    with pytest.raises(UnknownAdapterError):
        find(name, registry, AdapterStore(registry.home / "adapters"))
    assert isinstance(ask(name).exception, RatchetError)


@pytest.mark.parametrize("arguments", [(), ("abcdef", "--principal", "ann")])
def test_asking_two_questions_at_once_is_refused(arguments: tuple[str, ...], tmp_path: Path) -> None:
    assert ask(*arguments).exit_code == 2


def test_canaries_that_were_planted_are_told_and_are_of_a_principal_of_their_own(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RATCHET_HOME", str(registry.home))
    canaries = draw_canaries(2, 0, NOTHING_HELD_OUT)
    mine = replace(trajectory(0), principals=("ann",))
    snapshot = write_snapshot([mine], NOTHING_HELD_OUT, registry.home / "snapshots", 7, {}, canaries=canaries)
    adapter = entered(registry.home, snapshot)
    found = report(adapter)
    assert found.snapshot.canaries == canaries
    assert found.principals == {"ann": 1, PRINCIPAL: 2}
    table = ask(adapter).stdout
    assert canaries[0].episode_id[:12] in table
    assert canaries[0].secret not in table
