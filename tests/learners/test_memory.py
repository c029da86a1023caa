"""The estimate of a training's memory against peaks of training processes that were measured."""

from pathlib import Path

import pytest

from learners.memory import EMBEDDED_SHAPE, Shape, training_memory
from learners.settings import LearnerSettings, LoraSettings, Stage
from ratchet_client.errors import ConfigurationError

IMITATION = LearnerSettings(stages=(Stage(objective="imitation", updates=1, trajectories=1),))
MIB = 2**20


# `VmHWM` of SmolLM2-135M after two updates on one tree, in MiB, on x86-64 with Torch 2.13 for CPUs.
@pytest.mark.parametrize(
    ("tokens", "counted", "dtype_bytes", "measured"),
    [
        (416, 40, 4, 2144),
        (656, 40, 4, 2704),
        (636, 500, 4, 2945),
        (296, 40, 2, 1350),
        (416, 40, 2, 1465),
        (656, 40, 2, 1912),
    ],
)
def test_the_estimate_is_what_was_measured(tokens: int, counted: int, dtype_bytes: int, measured: int) -> None:
    estimate = training_memory(EMBEDDED_SHAPE, IMITATION, tokens, dtype_bytes, counted / tokens)
    assert estimate / MIB == pytest.approx(measured, rel=0.1)


def test_branches_are_packed_up_to_their_own_limit_and_each_setting_counts() -> None:
    default = training_memory(EMBEDDED_SHAPE, LearnerSettings(), 1024, 4)
    assert default == training_memory(EMBEDDED_SHAPE, IMITATION, 2048, 4)
    pairs = LearnerSettings(stages=(Stage(objective="imitation", updates=1, trajectories=2),))
    assert default == training_memory(EMBEDDED_SHAPE, pairs, 1024, 4), "those of an update may be learned together"
    preferences = LearnerSettings(stages=(Stage(objective="preference_dpo", updates=1),))
    assert default == training_memory(EMBEDDED_SHAPE, preferences, 1024, 4)
    assert training_memory(EMBEDDED_SHAPE, LearnerSettings(max_length=512), 1024, 4) < default
    assert training_memory(EMBEDDED_SHAPE, LearnerSettings(lora=LoraSettings(rank=64)), 1024, 4) > default
    assert training_memory(EMBEDDED_SHAPE, LearnerSettings(lora=LoraSettings(layers=4)), 1024, 4) < default
    assert training_memory(EMBEDDED_SHAPE, LearnerSettings(), 1024, 2) < default


def test_the_shape_of_a_model_is_read_from_its_folder(tiny_base: Path, tmp_path: Path) -> None:
    shape = Shape.read(tiny_base)
    assert shape.parameters > shape.vocabulary * shape.hidden
    assert shape.layers >= 1
    for content in (None, "[]", "{}"):
        if content is not None:
            (tmp_path / "config.json").write_text(content)
        with pytest.raises(ConfigurationError):
            Shape.read(tmp_path)
