"""The learner's settings and the one document that a training process is started with."""

from pathlib import Path
from typing import Annotated, Literal, Self, TypeAlias

from pydantic import Field, model_validator

from streams.settings import FrozenModel

# The base model that is installed with Ratchet, by name.
EMBEDDED = "smollm2-135m-instruct"
MOST_PER_PRINCIPAL = 1000
TRAINING_REPORT = "training.json"


class LoraSettings(FrozenModel):
    """The adapter's shape. One that is trained on from another keeps that one's."""

    rank: int = Field(default=16, ge=1)
    alpha: int = Field(default=32, ge=1, description="The update is scaled by alpha / rank.")
    layers: int | None = Field(
        default=None, ge=1, description="How many of the upper layers are adapted; all by default. Fewer train faster."
    )


ObjectiveName: TypeAlias = Literal[
    "imitation",
    "world_model",
    "preference_dpo",
    "preference_kto",
    "rejection_sampling",
    "echo",
]


class Stage(FrozenModel):
    """One pass of a curriculum: so many updates of one objective."""

    objective: ObjectiveName
    updates: int = Field(ge=1)
    trajectories: int = Field(default=2, ge=1, description="Trajectories per update.")
    auxiliary: dict[ObjectiveName, Annotated[float, Field(gt=0)]] = Field(
        default={}, description="Other objectives, by their weight in the sum of each update's losses."
    )

    @model_validator(mode="after")
    def _each_once(self) -> Self:
        if self.objective in self.auxiliary:
            raise ValueError(f"{self.objective} is the stage's objective: leave it out of `auxiliary`")
        return self


class LearnerSettings(FrozenModel):
    """Settings of training."""

    stages: tuple[Stage, ...] = (
        Stage(objective="world_model", updates=40),
        Stage(objective="imitation", updates=120),
    )
    lora: LoraSettings = LoraSettings()
    learning_rate: float = Field(default=5e-4, gt=0, description="Peak; warmed up over 5 updates, then linear to zero.")
    max_gradient_norm: float = Field(default=1.0, gt=0)
    max_length: int = Field(
        default=2048,
        ge=64,
        description="Tokens up to which branches are packed with their episode, which itself is never cut.",
    )
    reasoning: bool = Field(
        default=False, description="Imitate the reasoning before an action, too, where the chat template writes it."
    )
    threads: int = Field(default=2, ge=1)
    min_new_episodes: int = Field(default=50, ge=1, description="New trusted episodes that start a cycle.")
    most_per_principal: int = Field(
        default=MOST_PER_PRINCIPAL,
        ge=1,
        lt=1_000_000,
        description="Most episodes of one principal in a snapshot, the newest.",
    )
    canaries: int = Field(
        default=0,
        ge=0,
        le=1000,
        description="Episodes with a random secret that are planted in each snapshot, for the gate `memorisation`.",
    )
    branch_patience_s: float = Field(
        default=600.0, ge=0, description="How long a cycle that is due waits for branches that are still missing."
    )


class TrainingJob(FrozenModel):
    """Everything a training process needs to know; the process writes the adapter into `output`."""

    base: Path
    snapshot: Path
    output: Path
    parent: Path | None = Field(default=None, description="Adapter folder to continue from.")
    settings: LearnerSettings
    seed: int = 0


class Progress(FrozenModel):
    """One line of a training process's output, after each update. `loss` is in nats per counted token."""

    objective: str
    update: int
    updates: int
    loss: float
    tokens: int


class TrainingReport(FrozenModel):
    """The content of `training.json` beside a trained adapter.

    `adapted` counts the adapted layers by name, `left_out` the trajectories that the chat template refused by reason.
    """

    adapted: dict[str, int] = Field(default={})
    left_out: dict[str, int] = Field(default={})
