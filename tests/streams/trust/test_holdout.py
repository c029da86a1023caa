"""Tasks under several names are on one side; those that the operator pins are held out whatever their hash."""

from pathlib import Path

import pytest

from daemon.config import Settings
from evaluation.settings import GateSettings, GoldenSettings
from learners.snapshots import write_snapshot
from learners.trajectories import Trajectory
from ratchet_client.ids import content_id
from ratchet_client.messages import assistant, user
from streams.branch_events import RecordedStep
from streams.errors import TrainingError
from streams.trust.holdout import HoldoutSettings, Split

HOLDOUT = HoldoutSettings(selection=0.3, confirmation=0.1)
NOTHING = HoldoutSettings(selection=0.0, confirmation=0.0)
IDS = [f"orders/{number}" for number in range(200)]


def test_other_names_of_a_task_are_on_its_side() -> None:
    knowing = HOLDOUT.knowing({f"hash-{task}": (task,) for task in IDS})
    assert any(HOLDOUT.split(f"hash-{task}") is not HOLDOUT.split(task) for task in IDS)
    assert all(knowing.split(f"hash-{task}") is HOLDOUT.split(task) is knowing.split(task) for task in IDS)
    assert knowing.split("unknown") is HOLDOUT.split("unknown")
    # The figures of an installation stay comparable.
    assert knowing.model_dump() == HOLDOUT.model_dump()


def test_a_name_of_several_tasks_is_held_out_if_one_of_them_is() -> None:
    train = next(task for task in IDS if HOLDOUT.split(task) is Split.TRAIN)
    held_out = next(task for task in IDS if HOLDOUT.split(task) is Split.SELECTION)
    knowing = HOLDOUT.knowing({"mixed": (train, held_out), "learnable": (train, f"{train}~variant")})
    assert knowing.split("mixed") is Split.SELECTION
    assert knowing.split("learnable") is Split.TRAIN


def test_a_pinned_task_and_its_variants_belong_to_selection_for_good() -> None:
    plain = HoldoutSettings()
    trained = next(f"orders/{n}" for n in range(100) if plain.split(f"orders/{n}") is Split.TRAIN)
    confirmed = next(f"orders/{n}" for n in range(100) if plain.split(f"orders/{n}") is Split.CONFIRMATION)
    pinned = HoldoutSettings(pinned={trained, f"{confirmed}~late"})
    for task in (trained, f"{trained}~late", confirmed, f"{confirmed}~early"):
        assert pinned.split(task) is Split.SELECTION
    assert pinned.split("orders/0~x") is plain.split("orders/0") or "orders/0" in (trained, confirmed)


def test_settings_without_pinned_tasks_have_the_digest_they_had_and_others_one_in_every_process() -> None:
    assert HoldoutSettings().model_dump_json() == '{"key":"ratchet","selection":0.3,"confirmation":0.1}'
    some = HoldoutSettings(pinned={"b", "a", "c"})
    assert some.model_dump_json().endswith('"pinned":["a","b","c"]}')
    assert content_id(some.model_dump_json()) == content_id(HoldoutSettings(pinned={"c", "a", "b"}).model_dump_json())
    assert HoldoutSettings.model_validate_json(some.model_dump_json()) == some


def test_golden_tasks_are_pinned_in_the_settings_of_all_roles(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "golden.txt"
    file.write_text("orders/2\n")
    golden = GoldenSettings(tasks=("orders/1",), file=file)
    settings = Settings(gate=GateSettings(golden=golden), holdout=HoldoutSettings(pinned={"orders/3"})).settled()
    assert settings.holdout.pinned == {"orders/1", "orders/2", "orders/3"}
    assert settings.gate.golden.tasks == ("orders/1", "orders/2")
    # What the roles are handed does not depend on the file any more.
    file.unlink()
    for name, value in settings.to_environment().items():
        monkeypatch.setenv(name, value)
    assert Settings.load().holdout == settings.holdout
    assert Settings.load().gate == settings.gate


def test_no_snapshot_has_a_pinned_task(tmp_path: Path) -> None:
    step = RecordedStep(action=assistant("look"), observation=(user("nothing"),))
    trajectory = Trajectory(
        episode_id="e",
        task_id="orders/1",
        opening=(user("go"),),
        steps=(step,),
        branches=(),
        actor_kind="expert",
        adapter=None,
        principals=("tenant",),
    )
    assert write_snapshot([trajectory], NOTHING, tmp_path, as_of=1, offsets={})
    pinned = NOTHING.model_copy(update={"pinned": frozenset({"orders/1"})})
    with pytest.raises(TrainingError, match="orders/1 are held out"):
        write_snapshot([trajectory], pinned, tmp_path, as_of=1, offsets={})
