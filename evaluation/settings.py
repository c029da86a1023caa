"""The settings of this floor; `daemon/config.py` composes them."""

from pydantic import BaseModel, ConfigDict, Field

from streams.policy import Sampling


class RolloutSettings(BaseModel):
    """How held-out tasks are played. Both sides of a comparison are always played alike."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    sampling: Sampling = Field(default=Sampling(), description="Greedy by default, so that a verdict can be repeated.")
    concurrency: int = Field(default=64, ge=1, description="Tasks played at once; the pool must hold as many sessions.")


class GateSettings(BaseModel):
    """What a candidate must show before it may serve."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    alpha: float = Field(default=0.05, gt=0, lt=0.5, description="Highest p-value that counts as proof, in either way.")
    min_tasks: int = Field(default=150, ge=1, description="Fewer paired tasks than this give no verdict at all.")
    rollouts: RolloutSettings = RolloutSettings()


class ProbeSettings(BaseModel):
    """How close a served adapter must be to the one that was trained."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    tolerance: float = Field(
        default=0.15, gt=0, description="Highest mean absolute difference per token, in nats, to the trainer's record."
    )
