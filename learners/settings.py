"""The learner's settings and the one document that a training process is started with."""

from pathlib import Path
from typing import Literal, Self, TypeAlias

from pydantic import Field, SecretStr, model_validator

from ratchet_client.ids import content_id
from ratchet_client.settings import FrozenModel, Secret, ServerUrlIfAny

# The base model that is installed with Ratchet, by name.
EMBEDDED = "smollm2-135m-instruct"
MOST_PER_PRINCIPAL = 1000
MOST_PRACTISED_PER_TASK = 16
TRAINING_REPORT = "training.json"
# The rationales that a training learned and those that were dropped, beside its adapter.
REFLECTIONS = "reflections.jsonl"
CHECKPOINT = "checkpoint.pt"


class LoraSettings(FrozenModel):
    """The adapter's shape. One that is trained on from another keeps that one's."""

    rank: int = Field(default=16, ge=1)
    alpha: int = Field(default=32, ge=1, description="The update is scaled by alpha / rank.")
    layers: int | None = Field(
        default=None, ge=1, description="How many of the upper layers are adapted; all by default. Fewer train faster."
    )


Quantisation: TypeAlias = Literal["nf4"]

ObjectiveName: TypeAlias = Literal[
    "imitation",
    "world_model",
    "grpo",
    "dr_grpo",
    "exgrpo",
    "erl",
    "mel",
    "self_distillation",
    "preference_dpo",
    "preference_kto",
    "rejection_sampling",
    "echo",
    "reflection",
    "inverse_dynamics",
]


class Auxiliary(FrozenModel):
    """A second loss of each update of a stage."""

    objective: ObjectiveName
    weight: float = Field(default=1.0, gt=0, description="Weight of its loss beside 1 of the stage's own.")
    trajectories: int = Field(default=2, ge=1, description="Its own trajectories per update.")


class Stage(FrozenModel):
    """One pass of a curriculum: so many updates of one objective, or of several jointly.

    The loss of an update is the objective's plus the weighted sum of the auxiliaries', each a mean of its own.
    """

    objective: ObjectiveName
    updates: int = Field(ge=1)
    trajectories: int = Field(default=2, ge=1, description="Trajectories per update.")
    # Left out where empty: ids are made of these documents, and are those of stages of before there were auxiliaries.
    auxiliary: tuple[Auxiliary, ...] = Field(default=(), exclude_if=lambda auxiliary: not auxiliary)

    @model_validator(mode="after")
    def _each_objective_once(self) -> Self:
        if len(set(self.objectives)) < len(self.objectives):
            raise ValueError("an objective stands twice in one stage: name each once, with the sum of the weights")
        return self

    @property
    def objectives(self) -> tuple[ObjectiveName, ...]:
        """The objective and those of the auxiliaries."""
        return (self.objective, *(each.objective for each in self.auxiliary))

    def __str__(self) -> str:
        weighed = (f" + {each.weight:g} {each.objective}" for each in self.auxiliary)
        return f"{self.updates} updates of {self.objective}{''.join(weighed)}"


def practised_stage(updates: int) -> Stage:
    """A stage for what was practised: its successes and, as many again, all that is trusted, so that none is lost."""
    imitation = Auxiliary(objective="imitation", trajectories=1)
    return Stage(objective="rejection_sampling", updates=updates, trajectories=1, auxiliary=(imitation,))


class PracticeSettings(FrozenModel):
    """Settings of practice: what serves plays train tasks in sandboxes, between cycles, in rounds."""

    enabled: bool = Field(default=False, description="Practise whenever no cycle is due and nothing is at a gate.")
    tasks: int = Field(default=16, ge=1, description="Tasks of a round.")
    samples: int = Field(default=8, ge=2, description="Episodes of each task: a group.")
    temperature: float = Field(default=1.0, gt=0, description="Sampling temperature of practice; gates play greedily.")
    explore: float = Field(default=0.25, ge=0, le=1, description="Share of a round for tasks never practised before.")
    revisit: float = Field(
        default=0.05, ge=0, le=1, description="Share of a round for tasks that were always solved, or never."
    )
    most_seconds: float = Field(default=600.0, gt=0, description="Longest round; what is unfinished then is dropped.")
    most_steps: int = Field(default=4000, ge=1, description="Steps of a round after which no episode begins.")
    concurrency: int = Field(default=4, ge=1, description="Episodes played at once.")
    most_in_flight: int = Field(
        default=0, ge=0, description="While more calls of agents than this are in flight, no practice episode begins."
    )
    rest_s: float = Field(default=30.0, ge=0, description="Pause between rounds.")
    second_attempts: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="Share of the groups with a failure that are followed up by an attempt with advice, for `erl`, "
        "`mel` and `self_distillation`.",
    )
    generated: int = Field(
        default=200,
        ge=0,
        description="Tasks that the environment is asked to generate, if it can, to practise those of the train split.",
    )
    min_new_episodes: int = Field(
        default=64,
        ge=1,
        description="New practice successes that start a cycle, counted on tasks that the adapter failed at, too.",
    )
    most_per_task: int = Field(
        default=MOST_PRACTISED_PER_TASK,
        ge=1,
        description="Most practised successes, and most failures, of one task in a snapshot, the newest.",
    )
    stages: tuple[Stage, ...] = Field(
        default=(practised_stage(60),),
        description="Stages of a cycle that is due for practice alone; the learner's own where there are none.",
    )
    # Left out where there is none: ids are made of these documents, and are those of before there was one.
    learning_rate: float | None = Field(
        default=None,
        gt=0,
        description="Learning rate of such a cycle; the learner's own where it is not set.",
        exclude_if=lambda rate: rate is None,
    )

    @model_validator(mode="after")
    def _shares_of_one_round(self) -> Self:
        if self.explore + self.revisit > 1:
            raise ValueError("explore and revisit are shares of one round: together they are 1 at most")
        return self


class ReplaySettings(FrozenModel):
    """Settings of the measures against forgetting: what each update replays beside what is new."""

    enabled: bool = Field(
        default=False, description="Draw what is new and what is older apart, instead of evenly from the snapshot."
    )
    share: float = Field(default=0.1, ge=0, lt=1, description="Share of each update's trajectories that are older.")
    prioritised: bool = Field(
        default=False, description="Of what is older, draw first what is nearest to what is new, by similarity hash."
    )
    most: int = Field(
        default=1000,
        ge=0,
        description="Most older episodes that a snapshot takes beyond the newest ones of a principal, or of a task.",
    )
    base_prompts: Path | None = Field(
        default=None, description="File of prompts, one a line, whose answers by the base model are replayed, too."
    )
    base_share: float = Field(
        default=0.05, ge=0, lt=1, description="Share of each update's trajectories that are answers by the base model."
    )

    @model_validator(mode="after")
    def _something_new_is_left(self) -> Self:
        if self.share + self.base_share >= 1:
            raise ValueError("share and base_share are shares of one update: together they are less than 1")
        return self


class ReflectionSettings(FrozenModel):
    """Settings of the rationales that the objective `reflection` learns."""

    writer: Literal["grounded", "model"] = Field(
        default="grounded",
        description="Composed from observed outcomes, or written by a model; where that fails, composed after all.",
    )
    url: ServerUrlIfAny = Field(
        default="", description="An OpenAI-compatible server of a writer, with or without /v1; empty is what serves."
    )
    model: str = Field(default="", description="The writer's name there.")
    api_key: Secret = Field(default=SecretStr(""), description="Its API key, if it wants one; never shown.")
    alternatives: int = Field(default=3, ge=1, le=4, description="Most alternatives that a rationale compares.")
    states: int = Field(default=2000, ge=1, description="Most states of a snapshot that get one, drawn by the seed.")

    @model_validator(mode="after")
    def _names_the_model_of_a_server(self) -> Self:
        if self.url and not self.model:
            raise ValueError("model is missing: name the model of the server at url that writes rationales")
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
        description="Tokens up to which branches are packed with their episode, which itself is never cut, and "
        "episodes that begin alike are joined.",
    )
    reasoning: bool = Field(
        default=False, description="Imitate the reasoning before an action, too, where the chat template writes it."
    )
    threads: int = Field(default=2, ge=1)
    tokens_per_update: int | None = Field(
        default=None, ge=64, description="Tokens that an update learns from, instead of its stage's `trajectories`."
    )
    gradient_checkpointing: bool = Field(
        default=False, description="Compute layers again in the backward pass: less memory, a third more time."
    )
    lower_layers_mib: int = Field(
        default=512,
        ge=0,
        description="Memory for what layers below the adapted ones give, where `lora.layers` leaves such; 0 for none.",
    )
    checkpoint_every: int = Field(default=20, ge=1, description="Updates between checkpoints.")
    quantisation: Quantisation | None = Field(
        default=None,
        description="Train against the base in 4 bit, as QLoRA does; needs the extra `qlora`. The adapter is "
        "served on the base as it is.",
    )
    accelerate: Path | None = Field(
        default=None, description="File of `accelerate config`: training is then started by `accelerate launch`."
    )
    interpolation: float = Field(
        default=1.0,
        gt=0,
        le=1,
        description="How far the weights move from the parent's to the trained ones, as Reptile has it; 1 is all.",
    )
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
    practice: PracticeSettings = PracticeSettings()
    replay: ReplaySettings = ReplaySettings()
    reflection: ReflectionSettings = ReflectionSettings()

    def for_practice(self) -> Self:
        """The settings of a cycle that is due for practice alone."""
        given = {"stages": self.practice.stages or None, "learning_rate": self.practice.learning_rate}
        return self.model_copy(update={name: value for name, value in given.items() if value is not None})


class TrainingJob(FrozenModel):
    """Everything a training process needs to know; the process writes the adapter into `output`."""

    base: Path
    snapshot: Path
    output: Path
    parent: Path | None = Field(default=None, description="Adapter folder to continue from.")
    reflections: Path | None = Field(default=None, description="File of rationales, which belongs to the snapshot.")
    reflections_sha256: str = ""
    settings: LearnerSettings
    seed: int = 0

    @property
    def job_id(self) -> str:
        """The same for jobs that do the same, wherever they write."""
        return content_id(self.model_dump_json(exclude={"output"}))


class Progress(FrozenModel):
    """One line of a training process's output, after each update.

    `loss` is in nats per counted token, that of a joint update the weighted sum of `losses`, which has each objective's
    own. `memory_bytes` is the most memory that the process has had, or that the GPU has given it; 0 where that is not
    known. `tokens` are those of the update's trees. `gradient_norm` is of before it is clipped. `left_s` is an estimate
    of the seconds until the last update, None at the first.
    """

    objective: str
    update: int
    updates: int
    loss: float
    losses: dict[str, float] = Field(default={})
    tokens: int
    memory_bytes: int = 0
    tokens_per_s: float = 0.0
    gradient_norm: float = 0.0
    left_s: float | None = None


class TrainingReport(FrozenModel):
    """The content of `training.json` beside a trained adapter.

    `adapted` counts the adapted layers by name, `left_out` the trajectories that the chat template refused by reason.
    `reflections` counts rationales by `writer/kept`, or `writer/` and the reason for which they were dropped.
    """

    adapted: dict[str, int] = Field(default={})
    left_out: dict[str, int] = Field(default={})
    reflections: dict[str, int] = Field(default={})
