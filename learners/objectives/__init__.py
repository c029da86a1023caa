"""The objectives of training, one algorithm per file.

To add one, write a class that satisfies `objective.Objective` in a file of its own, list it in `OBJECTIVES`, and allow
its name in `Stage` of `learners/settings.py`; a stage of `learner.stages` then names it. Imports `learners.packing` and
`learners.trajectories`.
"""

from learners.objectives.echo import Echo
from learners.objectives.imitation import Imitation
from learners.objectives.objective import Objective
from learners.objectives.preference_dpo import PreferenceDPO
from learners.objectives.preference_kto import PreferenceKTO
from learners.objectives.rejection_sampling import RejectionSampling
from learners.objectives.world_model import WorldModel

OBJECTIVES: dict[str, Objective] = {
    objective.name: objective
    for objective in (
        Imitation(),
        WorldModel(),
        PreferenceDPO(),
        PreferenceKTO(),
        RejectionSampling(),
        Echo(),
    )
}
