"""A task is on one side of the holdout under all of its names."""

from streams.trust.holdout import HoldoutSettings, Split

HOLDOUT = HoldoutSettings(selection=0.3, confirmation=0.1)
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
