"""The objectives of training, one algorithm per file.

To add one, write a class that satisfies `objective.Objective` in a file of its own, list it in `OBJECTIVES`, and allow
its name in `Stage` of `learners/settings.py`; a stage of `learner.stages` then names it. Imports `learners.packing` and
`learners.trajectories`.
"""

from learners.objectives.echo import Echo
from learners.objectives.erl import Erl
from learners.objectives.exgrpo import ExGrpo
from learners.objectives.grpo import Grpo
from learners.objectives.imitation import Imitation
from learners.objectives.inverse_dynamics import InverseDynamics
from learners.objectives.mel import Mel
from learners.objectives.objective import Objective
from learners.objectives.preference_dpo import PreferenceDPO
from learners.objectives.preference_kto import PreferenceKTO
from learners.objectives.reflection import Reflection
from learners.objectives.rejection_sampling import RejectionSampling
from learners.objectives.self_distillation import SelfDistillation
from learners.objectives.world_model import WorldModel

_DR_GRPO_LENGTH = 256

_ALL: tuple[Objective, ...] = (
    Imitation(),
    WorldModel(),
    Echo(),
    RejectionSampling(),
    PreferenceDPO(),
    PreferenceKTO(),
    Grpo(),
    Grpo("dr_grpo", scaled=False, length=_DR_GRPO_LENGTH),
    ExGrpo(),
    Erl(),
    Mel(),
    SelfDistillation(),
    Reflection(),
    InverseDynamics(),
)
OBJECTIVES: dict[str, Objective] = {objective.name: objective for objective in _ALL}
