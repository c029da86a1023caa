"""One changed byte of any file of a home is found and named, and nothing else is."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from daemon.cli import app
from daemon.registry import holds
from daemon.registry.evidence import fingerprints
from daemon.registry.lifecycle import State
from daemon.registry.registry import Registry
from daemon.registry.schemas import BASE, CycleReport
from daemon.registry.verifying import Verification, verify
from evaluation.gates.verdict import Verdict
from learners.adapters import AdapterStore
from learners.signing import PUBLIC_KEY, SIGNATURE, SIGNING_KEY
from learners.snapshots import write_snapshot
from ratchet_client.errors import ConfigurationError
from streams.errors import TrainingError
from streams.kafka.operator_key import make_operator_key
from streams.redaction.key import redaction_key
from streams.trust.holdout import HoldoutSettings
from tests.builders.trained import entered, trajectory

CHECKSUM = ".sha256"


def made(home: Path) -> Path:
    """A home with two adapters, one of them rolled back and restored, keys, and what the verdicts rest on."""
    nothing_held_out = HoldoutSettings(selection=0.0, confirmation=0.0)
    snapshot = write_snapshot([trajectory(0), trajectory(1)], nothing_held_out, home / "snapshots", 7, {"events/0": 9})
    registry = Registry(home)
    make_operator_key(home)
    redaction_key(home)
    (home / "task_uses.jsonl").write_text('{"kind": "begun"}\n')
    for number, weights in enumerate(("first", "second"), start=1):
        adapter = entered(home, snapshot, weights=weights)
        folder = home / "adapters" / adapter
        (folder / "gate.json").write_text(f'{{"gate": "{number}"}}')
        (folder / "report.md").write_text(f"# Report {number}\n")
        rollouts = home / "trials" / f"{adapter}-1" / "rollouts.jsonl"
        rollouts.parent.mkdir(parents=True)
        rollouts.write_text(f'{{"played": {number}}}\n')
        for state in (State.TRAINED, State.EVALUATING, State.APPROVED):
            registry.enter(adapter, state, "learner", "ünïcode is kept")
        evidence = fingerprints(home, (folder / "gate.json", folder / "report.md", rollouts, home / "task_uses.jsonl"))
        cycle = CycleReport(
            cycle=number,
            adapter=adapter,
            champion=BASE,
            verdict=Verdict.PROMOTE,
            reason="better",
            tasks=0,
            gates=(),
            seconds=0.1,
            evidence=evidence,
        )
        registry.record_cycle(cycle, "learner")
        registry.promote(adapter, "learner", "better")
    # A later trial has begun.
    with (home / "task_uses.jsonl").open("a") as uses:
        uses.write('{"kind": "played"}\n')
    first = registry.refs().previous
    registry.roll_back(first, "anna", "complaints", hold=True)
    registry.restore(adapter, "anna", "it was the other one")
    registry.set_anchor(first, "anna", "an older one")
    holds.end(registry.audit, adapter, "anna", "it is over")
    for left in (home / "training").iterdir():
        left.unlink()
    return home


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made(tmp_path_factory.mktemp("verified") / "home")


def files(home: Path) -> list[Path]:
    return sorted(path for path in home.rglob("*") if path.is_file())


@contextmanager
def changed(path: Path, place: int, by: int) -> Iterator[None]:
    content = path.read_bytes()
    try:
        path.write_bytes(content[:place] + bytes([content[place] ^ by]) + content[place + 1 :])
        yield
    finally:
        path.write_bytes(content)


def named(home: Path, result: Verification) -> set[str]:
    """The files that are named; a key and its checksum are told together."""
    return {finding.path.removesuffix(CHECKSUM) for finding in result.findings}


def test_a_home_that_nobody_touched_is_whole(home: Path) -> None:
    result = verify(home)
    assert (result.findings, result.unsigned) == ((), ())
    assert (result.adapters, result.snapshots, result.entries) == (2, 1, len(Registry(home).audit.read()))


def test_a_home_in_which_nothing_happened_is_whole(tmp_path: Path) -> None:
    assert verify(tmp_path).findings == ()


@pytest.mark.slow
@settings(deadline=None, max_examples=300, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_a_changed_byte_of_any_file_is_found_and_named_and_nothing_else(home: Path, data: st.DataObject) -> None:
    path = data.draw(st.sampled_from(files(home)))
    # Behind what its last fingerprint covers, the account of held-out tasks is not vouched for.
    size = 18 if path.name == "task_uses.jsonl" else path.stat().st_size
    place = data.draw(st.integers(0, size - 1))
    with changed(path, place, data.draw(st.integers(1, 255))):
        result = verify(home)
    assert named(home, result) == {str(path.relative_to(home)).removesuffix(CHECKSUM)}
    assert all(finding.problem and finding.remedy for finding in result.findings)


def test_the_first_the_middle_and_the_last_byte_of_every_file_are_vouched_for(home: Path) -> None:
    for path in files(home):
        size = 18 if path.name == "task_uses.jsonl" else path.stat().st_size
        for place in {0, size // 2, size - 1}:
            with changed(path, place, 1):
                result = verify(home)
            assert named(home, result) == {str(path.relative_to(home)).removesuffix(CHECKSUM)}, (path, place)


@pytest.mark.slow
def test_every_byte_of_a_signature_counts(home: Path) -> None:
    path = next((home / "adapters").glob(f"*/{SIGNATURE}"))
    for place in range(path.stat().st_size):
        with changed(path, place, 1), pytest.raises(TrainingError, match="does not vouch"):
            AdapterStore(home / "adapters").check(path.parent.name)


def test_an_adapter_that_another_home_signed_is_not_taken_for_this_ones(home: Path, tmp_path: Path) -> None:
    other = made(tmp_path / "other")
    for name in (SIGNING_KEY, PUBLIC_KEY):
        (other / name).write_bytes((home / name).read_bytes())
    assert {Path(path).name for path in named(other, verify(other))} == {SIGNATURE}


def test_adapters_without_a_signature_are_told_and_fail_only_where_that_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = made(tmp_path / "home")
    monkeypatch.setenv("RATCHET_HOME", str(home))
    for signature in (home / "adapters").glob(f"*/{SIGNATURE}"):
        signature.unlink()
    runner = CliRunner()
    nowhere = runner.invoke(app, ["verify"], env={"RATCHET_HOME": str(tmp_path / "mistyped")})
    assert isinstance(nowhere.exception, ConfigurationError)
    assert runner.invoke(app, ["verify"]).exit_code == 0
    strict = runner.invoke(app, ["verify", "--strict", "--json"])
    assert (strict.exit_code, len(json.loads(strict.stdout)["unsigned"])) == (1, 2)
    weights = next((home / "adapters").glob("*/adapter_model.safetensors"))
    with changed(weights, 0, 1):
        told = runner.invoke(app, ["verify"])
    assert (told.exit_code, "never loaded" in told.stdout) == (1, True)
