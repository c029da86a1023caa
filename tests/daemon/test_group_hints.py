"""Commands that messages about a group's adapters name are commands for that group."""

from datetime import UTC, datetime
from pathlib import Path

import pytest
import structlog

from daemon.commands.running import held_candidates, held_in_groups
from daemon.console import status_table
from daemon.registry import holds
from daemon.registry.lifecycle import State
from daemon.registry.registry import Registry
from daemon.registry.schemas import BASE, GroupStatus, HeldAdapter, Hold
from daemon.registry.verifying import verify
from daemon.serving.alias import Alias
from daemon.serving.drill import RollbackDrill
from daemon.serving.replicas import Replicas
from daemon.serving.settings import DrillSettings
from daemon.serving.turn import Turn
from evaluation.settings import ProbeSettings
from streams.errors import LifecycleError, PromotionError
from streams.policy.client import PolicyClient
from streams.trust.groups import home_of
from tests.daemon.registry.test_verifying import made
from tests.daemon.test_console import BARE

ADAPTER = "a" * 64
DECIDE = "`ratchet approve --group acme ADAPTER --reason WHY`, or `ratchet reject --group acme`"


@pytest.fixture
def acme(tmp_path: Path) -> Registry:
    return Registry(home_of(tmp_path, "acme"), "acme")


def waiting() -> HeldAdapter:
    now = datetime.now(UTC)
    return HeldAdapter(adapter=ADAPTER, since=now, lapses=now, reason="a test", against=BASE, obstacle=None)


def test_the_status_of_a_group_names_its_commands() -> None:
    hold = Hold(since=datetime.now(UTC), actor="anna", reason="an incident")
    report = BARE.model_copy(update={"group": "acme", "hold": hold, "held": (waiting(),)})
    cells = [str(cell) for cell in status_table(report).columns[1].cells]
    assert any(cell.endswith("`ratchet resume --group acme` ends it") for cell in cells)
    assert f"a person decides: {DECIDE}" in cells


def test_the_doctor_names_the_commands_of_each_group_in_which_a_candidate_waits() -> None:
    report = BARE.model_copy(update={"group": "acme", "held": (waiting(),)})
    assert held_candidates(report).remedy == f"{DECIDE}; `ratchet status --group acme` has all of them"
    groups = tuple(
        GroupStatus(name=name, alias=name, champion=BASE, previous=BASE, anchor=BASE, served=None, held=held)
        for name, held in (("", 1), ("acme", 2), ("other", 0))
    )
    (check,) = held_in_groups(BARE.model_copy(update={"groups": groups}))
    assert check.message == "2 candidates of the group acme wait for a person"
    assert check.remedy.startswith(DECIDE)


def test_a_promotion_that_a_hold_of_a_group_stops_names_what_lets_it_serve(acme: Registry) -> None:
    holds.begin(acme.audit, BASE, "anna", "an incident")
    with pytest.raises(PromotionError) as refused:
        acme.promote(ADAPTER, "learner", "better", automatic=True)
    assert "`ratchet approve --group acme` lets it serve, `ratchet resume --group acme` ends" in str(refused.value)


def test_what_cannot_be_restored_in_a_group_names_what_can_be_done(acme: Registry) -> None:
    with pytest.raises(LifecycleError, match="`ratchet history --group acme` lists"):
        acme.check_may_be_restored(ADAPTER)
    with pytest.raises(LifecycleError, match="`ratchet status --group acme` lists"):
        acme.reject(ADAPTER, "anna", "rude")
    for state in (State.TRAINED, State.EVALUATING, State.HELD):
        acme.enter(ADAPTER, state, "learner", "a test")
    with pytest.raises(LifecycleError, match=r"; `ratchet approve --group acme` it$"):
        acme.check_may_be_restored(ADAPTER)
    acme.approve(ADAPTER, "anna", "fine")
    later = "b" * 64
    for state in (State.TRAINED, State.EVALUATING, State.APPROVED):
        acme.enter(later, state, "learner", "a test", against=ADAPTER)
    acme.promote(later, "anna", "better")
    with pytest.raises(LifecycleError, match=r"; `ratchet rollback --group acme --to` it$"):
        acme.check_may_be_restored(ADAPTER)


def test_a_damaged_adapter_of_a_group_names_its_rollback(tmp_path: Path) -> None:
    home = made(tmp_path / "home")
    group = made(home_of(home, "acme"))
    next((group / "adapters").glob("*/adapter_model.safetensors")).write_bytes(b"torn")
    remedies = [finding.remedy for finding in verify(home).findings if "never loaded" in finding.remedy]
    assert remedies
    assert all("`ratchet rollback --group acme`" in remedy for remedy in remedies)


async def test_a_drill_that_fails_in_a_group_names_its_rollback(acme: Registry) -> None:
    acme.home.mkdir(parents=True)
    async with PolicyClient("http://127.0.0.1:9") as nowhere:
        replicas = Replicas([nowhere])
        replicas.first.away = "nothing answers there"
        drill = RollbackDrill(acme, replicas, Alias("assistant"), Turn(), DrillSettings(), ProbeSettings())
        with structlog.testing.capture_logs() as said:
            await drill.hold("anna", "now")
    assert [entry["remedy"] for entry in said] == ["`ratchet rollback --group acme --to` another"]
