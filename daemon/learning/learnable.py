"""The stages of a cycle that have something to learn from: without a sandbox, for instance, no branches are there."""

from collections.abc import Sequence, Set

import structlog

from learners.settings import Stage
from learners.trajectories import Trajectory
from streams.errors import TrainingError

log = structlog.get_logger()


def learnable_stages(stages: Sequence[Stage], trajectories: Sequence[Trajectory]) -> tuple[Stage, ...]:
    """The stages without the objectives that have no examples among `trajectories`; the log says which these are.

    The first auxiliary that has some takes the place of its stage's objective that has none, with weights as they were
    to each other; a stage of which nothing is left is left out. Raises `TrainingError` when none is left.
    """
    # Whatever asks for a role's name imports this module, and Torch takes seconds to import.
    from learners.objectives import OBJECTIVES

    named = dict.fromkeys(name for stage in stages for name in stage.objectives)
    empty = {name for name in named if not OBJECTIVES[name].examples(trajectories)}
    for name in named:
        if name in empty:
            log.info("an objective is left out: the snapshot holds nothing that it could learn from", objective=name)
    left = tuple(kept for stage in stages if (kept := _without(stage, empty)) is not None)
    if not left:
        raise TrainingError(
            f"the snapshot holds nothing that {' or '.join(named)} could learn from: name an objective in "
            "learner.stages that learns from what there is, such as imitation from trusted episodes, or see that there "
            "is what these need, such as branches or practice"
        )
    return left


def _without(stage: Stage, empty: Set[str]) -> Stage | None:
    auxiliary = tuple(each for each in stage.auxiliary if each.objective not in empty)
    if stage.objective not in empty:
        return stage.model_copy(update={"auxiliary": auxiliary})
    if not auxiliary:
        return None
    first, *others = auxiliary
    return Stage(
        objective=first.objective,
        updates=stage.updates,
        trajectories=first.trajectories,
        auxiliary=tuple(each.model_copy(update={"weight": each.weight / first.weight}) for each in others),
    )
