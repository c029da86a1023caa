"""What a training run minimises, one algorithm per file."""

from learners.objectives.imitation import Imitation
from learners.objectives.objective import Objective
from learners.objectives.world_model import WorldModel

OBJECTIVES: dict[str, Objective] = {objective.name: objective for objective in (Imitation(), WorldModel())}
