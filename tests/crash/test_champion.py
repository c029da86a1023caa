"""Killed at any write of a rollback, a restore or a hold: what serves is the old or the new, and the log fits."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from daemon.registry import holds
from daemon.registry.lifecycle import State
from daemon.registry.registry import Registry
from daemon.registry.verifying import verify
from ratchet_client.crash_points import VARIABLE
from tests.crash.victims import ROOT

A, B = "a" * 64, "b" * 64
CHAMPION = ["file.rename:before", "file.rename:after", "lines.append:before", "lines.append:after"]

CHANGE = """
import sys
from pathlib import Path
from daemon.registry import holds
from daemon.registry.registry import Registry
registry, what, adapter = Registry(Path(sys.argv[1])), sys.argv[2], sys.argv[3]
if what == "restore":
    registry.restore(adapter, "anna", "it was the other one")
elif what == "roll_back":
    registry.roll_back(adapter, "anna", "complaints", hold=True)
elif what == "hold":
    holds.begin(registry.audit, adapter, "anna", "an incident")
else:
    holds.end(registry.audit, adapter, "anna", "it is over")
"""


def change(home: Path, what: str, adapter: str, crash_at: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", CHANGE, str(home), what, adapter],
        cwd=ROOT,
        env={**os.environ, VARIABLE: crash_at},
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    """B serves and replaced A."""
    registry = Registry(tmp_path)
    for adapter in (A, B):
        for state in (State.TRAINED, State.EVALUATING, State.APPROVED):
            registry.enter(adapter, state, "learner", "the gate said so")
        registry.promote(adapter, "learner", "better")
    return registry


@pytest.mark.parametrize("place", [*CHAMPION, "lines.append:before@2", "lines.append:after@2"])
def test_a_rollback_that_dies_holds_before_it_changes_the_champion_and_ends_when_asked_for_again(
    place: str, registry: Registry
) -> None:
    assert change(registry.home, "roll_back", A, place).returncode == -signal.SIGKILL
    registry.reconcile("serve")
    assert verify(registry.home).findings == ()
    champion = registry.refs().champion
    assert champion in (A, B)
    if champion == A:
        assert holds.standing(registry.audit.read()) is not None
    else:
        assert change(registry.home, "roll_back", A).returncode == 0
    assert (registry.refs().champion, registry.state(A)) == (A, State.SERVING)
    assert registry.state(B) in (State.ROLLED_BACK, State.RETIRED)


@pytest.mark.parametrize("place", CHAMPION)
def test_a_restore_that_dies_has_happened_or_not_and_ends_when_asked_for_again(place: str, registry: Registry) -> None:
    registry.roll_back(A, "anna", "complaints")
    assert change(registry.home, "restore", B, place).returncode == -signal.SIGKILL
    registry.reconcile("serve")
    assert verify(registry.home).findings == ()
    if registry.refs().champion == A:
        assert (registry.state(A), registry.state(B)) == (State.SERVING, State.ROLLED_BACK)
        assert change(registry.home, "restore", B).returncode == 0
    assert (registry.refs().champion, registry.refs().previous) == (B, A)
    assert (registry.state(A), registry.state(B)) == (State.RETIRED, State.SERVING)


@pytest.mark.parametrize("place", ["lines.append:before", "lines.append:after"])
@pytest.mark.parametrize("what", ["hold", "resume"])
def test_a_hold_or_its_end_that_dies_stands_once_it_is_asked_for_again(
    what: str, place: str, registry: Registry
) -> None:
    if what == "resume":
        holds.begin(registry.audit, B, "anna", "an incident")
    before = len(registry.audit.read())
    assert change(registry.home, what, B, place).returncode == -signal.SIGKILL
    assert len(registry.audit.read()) - before == (place == "lines.append:after")
    assert change(registry.home, what, B).returncode == 0
    assert (holds.standing(registry.audit.read()) is not None) == (what == "hold")
    assert len(registry.audit.read()) - before == 1
    assert verify(registry.home).findings == ()
