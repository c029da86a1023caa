"""Objectives with nothing to learn from are left out of a cycle, and what is left takes their place."""

from dataclasses import replace

import pytest
from structlog.testing import capture_logs

from daemon.learning.learnable import learnable_stages
from learners.settings import Auxiliary, ObjectiveName, Stage
from streams.errors import TrainingError
from tests.builders.trained import trajectory

BRANCHED = trajectory(0)
PLAIN = replace(BRANCHED, branches=())


def joint(first: ObjectiveName, *others: Auxiliary) -> Stage:
    return Stage(objective=first, updates=9, trajectories=1, auxiliary=others)


def test_all_stays_where_all_has_examples() -> None:
    stages = (joint("world_model", Auxiliary(objective="imitation")), joint("echo"))
    with capture_logs() as logged:
        assert learnable_stages(stages, [BRANCHED]) == stages
    assert logged == []


def test_stages_and_auxiliaries_without_examples_are_left_out_and_the_log_names_each_once() -> None:
    stages = (
        joint("world_model"),
        joint(
            "imitation", Auxiliary(objective="world_model"), Auxiliary(objective="grpo"), Auxiliary(objective="echo")
        ),
    )
    with capture_logs() as logged:
        assert learnable_stages(stages, [PLAIN]) == (joint("imitation", Auxiliary(objective="echo")),)
    assert [(entry["objective"], entry["log_level"]) for entry in logged] == [("world_model", "info"), ("grpo", "info")]


def test_an_auxiliary_takes_the_place_of_an_objective_without_examples() -> None:
    auxiliary = (
        Auxiliary(objective="imitation", weight=0.5, trajectories=3),
        Auxiliary(objective="echo", weight=0.25),
    )
    (stage,) = learnable_stages([joint("world_model", *auxiliary)], [PLAIN])
    assert (stage.objective, stage.updates, stage.trajectories) == ("imitation", 9, 3)
    assert stage.auxiliary == (Auxiliary(objective="echo", weight=0.5),)


def test_where_nothing_is_left_it_is_an_error_that_says_what_to_do() -> None:
    with pytest.raises(TrainingError, match="nothing that world_model or grpo could learn from: name an objective"):
        learnable_stages([joint("world_model", Auxiliary(objective="grpo"))], [PLAIN])
