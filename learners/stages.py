"""The losses of a stage: its objective's and those of its auxiliaries, each with examples of its own.

The policy as it was when the stage began, with which some of them compare, is the same for all of them.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from learners.batches import Batches, Packer
from learners.objectives import OBJECTIVES
from learners.objectives.objective import Objective
from learners.packed_tree import Tree
from learners.replay import Mixture, mixture
from learners.scoring import Reference
from learners.settings import Auxiliary, Stage, TrainingJob
from learners.trajectories import Trajectory
from streams.errors import TrainingError


@dataclass(frozen=True, slots=True)
class Batch:
    """The trees of one of an update's losses, of which it is the mean, times `weight`."""

    trees: Sequence[Tree]
    objective: Objective
    reference: Reference | None = None
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class Loss:
    """One loss of a stage, with what its examples are drawn from."""

    objective: Objective
    weight: float
    batches: Batches
    pool: Mixture


class StageLosses:
    """The losses of a running stage, the objective's own first. `reference` is None where none compares with it."""

    def __init__(self, losses: Sequence[Loss], reference: Reference | None) -> None:
        self._losses = losses
        self.reference = reference

    def next(self) -> list[Batch]:
        """The batches of the next update. Raises `TrainingError` when nothing of an objective can be trained on."""
        return [
            Batch(
                each.batches.next(),
                each.objective,
                self.reference if each.objective.needs_reference else None,
                each.weight,
            )
            for each in self._losses
        ]

    @property
    def pools(self) -> list[list[list[int]]]:
        """The examples still to come in this round, of each part of each loss."""
        return [each.pool.left for each in self._losses]

    def restore(
        self, pools: Sequence[list[list[int]]], reference: list[torch.Tensor] | None, device: torch.device
    ) -> None:
        """Go on where `pools` was read, with the weights that the stage began with."""
        for loss, left in zip(self._losses, pools, strict=True):
            loss.pool.restore(left)
        if self.reference is not None and reference is not None:
            self.reference.kept = [kept.to(device) for kept in reference]


def stage_losses(
    stage: Stage,
    job: TrainingJob,
    trajectories: Sequence[Trajectory],
    packer: Packer,
    generator: torch.Generator,
    reference: Callable[[], Reference],
) -> StageLosses:
    """Begin a stage. `reference` gives a copy of the weights as they are; it is called where a loss needs one.

    Raises `TrainingError` for an objective that has nothing to learn from.
    """

    def begin(part: Stage | Auxiliary, weight: float = 1.0) -> Loss:
        objective = OBJECTIVES[part.objective]
        examples = objective.examples(trajectories)
        if not examples:
            as_which = "" if isinstance(part, Stage) else f", an auxiliary of {stage.objective},"
            raise TrainingError(
                f"the snapshot {job.snapshot} holds nothing that {part.objective}{as_which} could learn from: leave it "
                "out of learner.stages"
            )
        pool = mixture(examples, job.settings.replay, generator)
        batches = Batches(examples, objective, packer, pool, part.trajectories, job.settings.tokens_per_update)
        return Loss(objective, weight, batches, pool)

    losses = [begin(stage), *(begin(each, each.weight) for each in stage.auxiliary)]
    compares = any(loss.objective.needs_reference for loss in losses)
    return StageLosses(losses, reference() if compares else None)
