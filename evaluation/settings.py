"""The settings of this layer; `daemon/config.py` composes them."""

from pydantic import Field

from streams.policy.client import Sampling
from streams.settings import FrozenModel


class RolloutSettings(FrozenModel):
    """Settings of rollouts on held-out tasks. Both sides of a comparison are always played alike."""

    sampling: Sampling = Field(default=Sampling(), description="Greedy by default, so that a verdict can be repeated.")
    concurrency: int = Field(default=64, ge=1, description="Tasks played at once; each has a session in a sandbox.")


class GateSettings(FrozenModel):
    """Settings of the gates."""

    gates: tuple[str, ...] = Field(
        default=("improvement",), min_length=1, description="The gates that a candidate must pass, in their order."
    )
    alpha: float = Field(default=0.05, gt=0, lt=0.5, description="Highest p-value that counts as proof, in either way.")
    min_tasks: int = Field(default=150, ge=1, description="Fewer paired tasks than this give no verdict at all.")
    rollouts: RolloutSettings = RolloutSettings()
    most_excluded: float = Field(
        default=0.02, ge=0, le=1, description="Largest share of a gate's tasks that may fail to be played to their end."
    )


class ProbeSettings(FrozenModel):
    """Tolerances of attestation: how close a served adapter must be to the one that was trained."""

    tolerance: float = Field(
        default=0.15, gt=0, description="Highest mean absolute difference per token, in nats, to the trainer's record."
    )
