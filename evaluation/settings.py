"""The settings of this layer; `daemon/config.py` composes them."""

from pydantic import Field

from streams.policy.client import Sampling
from streams.settings import FrozenModel


class RolloutSettings(FrozenModel):
    """Settings of rollouts on held-out tasks. Both sides of a comparison are always played alike."""

    sampling: Sampling = Field(default=Sampling(), description="Greedy by default, so that a verdict can be repeated.")
    concurrency: int = Field(default=64, ge=1, description="Tasks played at once; the pool must hold as many sessions.")


class CollapseSettings(FrozenModel):
    """Bounds of the gate `collapse`; what is outside of one is held for a person.

    Ratios are the candidate's to the champion's. A candidate that is to replace the base model is bounded by its
    divergence alone: to act at all, it must leave the way in which that one speaks.
    """

    prompts: int = Field(default=32, ge=8, description="States of the champion's episodes at which both reply.")
    max_tokens: int = Field(default=64, ge=1, description="Longest reply that is drawn, in tokens.")
    max_kl: float = Field(default=1.5, gt=0, description="Highest divergence from a champion, in nats per token.")
    max_kl_to_base: float = Field(
        default=8.0,
        gt=0,
        description="The same where the champion is the base model. A text drawn at random is at 11 or more.",
    )
    entropy_ratio: tuple[float, float] = Field(
        default=(0.1, 10.0),
        description="Lowest and highest ratio of entropies; gated only with another sign beside it.",
    )
    min_distinct_ratio: float = Field(default=0.5, gt=0, le=1, description="Lowest ratio of distinct 2-grams.")
    length_ratio: tuple[float, float] = Field(default=(0.25, 4.0), description="Lowest and highest ratio of lengths.")
    max_commonest: float = Field(
        default=0.9, gt=0, le=1, description="Highest share of the one reply that is given most, unless it is usual."
    )


class MemorisationSettings(FrozenModel):
    """Bounds of the gate `memorisation`."""

    alternatives: int = Field(default=127, ge=15, description="Random secrets that a planted one is ranked among.")
    max_exposure: float = Field(
        default=5.0,
        gt=0,
        description="Highest mean exposure, in bits; of secrets never seen it is 1.4, at most log2(alternatives + 1).",
    )


class RecordedSettings(FrozenModel):
    """Settings of the gate `recorded`."""

    states: int = Field(default=600, ge=1, description="Most recorded states that are asked, the newest episodes'.")
    min_tasks: int = Field(default=40, ge=1, description="Fewer tasks that they are of give no verdict.")
    max_tokens: int = Field(default=256, ge=1, description="Longest reply, in tokens.")


class GateSettings(FrozenModel):
    """Settings of the gates."""

    gates: tuple[str, ...] = Field(
        default=("improvement", "collapse", "memorisation"),
        min_length=1,
        description="The gates that a candidate must pass, in their order.",
    )
    alpha: float = Field(default=0.05, gt=0, lt=0.5, description="Highest p-value that counts as proof, in either way.")
    min_tasks: int = Field(default=150, ge=1, description="Fewer paired tasks than this give no verdict at all.")
    rollouts: RolloutSettings = RolloutSettings()
    collapse: CollapseSettings = CollapseSettings()
    memorisation: MemorisationSettings = MemorisationSettings()
    recorded: RecordedSettings = RecordedSettings()


class ProbeSettings(FrozenModel):
    """Tolerances of attestation: how close a served adapter must be to the one that was trained."""

    tolerance: float = Field(
        default=0.15, gt=0, description="Highest mean absolute difference per token, in nats, to the trainer's record."
    )
