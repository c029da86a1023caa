"""The settings of this layer; `daemon/config.py` composes them."""

from pathlib import Path
from typing import Annotated, Literal, Self, TypeAlias

from pydantic import Field, FiniteFloat, model_validator

from ratchet_client.errors import ConfigurationError
from ratchet_client.events import Identity
from ratchet_client.settings import FrozenModel
from streams.policy.client import Sampling

Measure: TypeAlias = Literal["success", "score"]
Spending: TypeAlias = Literal["lord", "constant"]


class RolloutSettings(FrozenModel):
    """Settings of rollouts on held-out tasks. Both sides of a comparison are always played alike."""

    sampling: Sampling = Field(default=Sampling(), description="Greedy by default, so that a verdict can be repeated.")
    concurrency: int = Field(default=64, ge=1, description="Tasks played at once; each has a session in a sandbox.")


class SentinelSettings(FrozenModel):
    """Bounds of the gate `sentinels`. A candidate beyond one of them waits for a person.

    Shares run from 0 to 1. "More" is by how much a share of the candidate's may exceed the champion's.
    """

    z: float = Field(default=3.0, gt=0, description="Standard errors from which a difference counts as one.")
    least_successes: int = Field(
        default=3, ge=1, description="With fewer successes, or under 2% of the tasks, the champion is no measure."
    )
    most_replays_differing: float = Field(
        default=0.02, ge=0, le=1, description="Largest share of wins that, replayed in a fresh process, are none."
    )
    fewest_replays_differing: int = Field(default=2, ge=1, description="As many must differ before any is held up.")
    own_process: int = Field(
        default=16, ge=0, description="Wins that are replayed in a process each; the others share fresh ones."
    )
    most_shorter: float = Field(
        default=0.1, ge=0, le=1, description="Largest share of wins shorter than the shortest known solution."
    )
    more_invalid: float = Field(default=0.05, ge=0, le=1, description="How many more of its actions may be invalid.")
    most_invalid: float = Field(
        default=0.5, ge=0, le=1, description="Largest share of invalid actions, and of failed calls, if it rose at all."
    )
    length_ratio: float = Field(
        default=2.0, gt=1, description="Largest ratio of lengths where both solve a task, in the median, either way."
    )
    length_ratio_to_known: float = Field(
        default=3.0, gt=1, description="The same to the known solutions, where the champion solved too little."
    )
    more_repetition: float = Field(default=0.1, ge=0, le=1, description="How much more of its actions may be repeats.")
    most_alike: float = Field(
        default=0.2, ge=0, le=1, description="Largest share of successes by one and the same sequence of actions."
    )
    alike_ratio: float = Field(default=3.0, ge=1, description="Or as many times the champion's own share.")
    most_odd_wins: float = Field(
        default=0.1,
        ge=0,
        le=1,
        description="Largest share of wins that are odd, such as of repeated actions mostly, beyond what is usual.",
    )
    more_tool_errors: float = Field(default=0.05, ge=0, le=1, description="How many more of its calls may fail.")
    more_refusals: float = Field(default=0.05, ge=0, le=1, description="In how many more tasks it may refuse.")
    more_questions: float = Field(default=0.05, ge=0, le=1, description="In how many more tasks it may ask back.")
    more_inaction: float = Field(default=0.05, ge=0, le=1, description="In how many more tasks it may call no tool.")
    most_unacting: float = Field(
        default=0.25, ge=0, le=1, description="Largest share of each of these three, if it rose at all."
    )


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
        description="The same to the base model. One text of words drawn at random is at 11 or more.",
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


class ImprovementSettings(FrozenModel):
    """Settings of the gate `improvement`."""

    measure: Measure = Field(
        default="success", description="`success` counts solved tasks; `score` compares scores, which takes more tasks."
    )
    max_tasks: int = Field(
        default=2000, ge=1, description="Most units of one gate; near a success of 0.5, 2400 have the same power."
    )
    block: int = Field(default=32, ge=1, description="Units that both sides play before the gate looks at the result.")
    reject_alpha: float = Field(
        default=0.05, gt=0, lt=0.5, description="Probability that a candidate that is not worse is rejected as worse."
    )
    used_list: Literal["HOLD", "PROMOTE"] = Field(
        default="HOLD",
        description="Verdict on a candidate that is better on a list that gates have played, where no fresh tasks are "
        "left to confirm it: a trainer that knows the list can be better on it alone.",
    )
    screen: float = Field(
        default=0.4, gt=0, lt=1, description="Highest p-value on a used or short list that is confirmed on fresh tasks."
    )


class TaskListSettings(FrozenModel):
    """Settings of the lists of held-out tasks, and of the account of their uses."""

    rotate_after: int = Field(
        default=50, ge=1, description="Gates after which other tasks are drawn; they are after each promotion too."
    )
    selection_tasks: int = Field(
        default=2000,
        ge=1,
        description="Most tasks of a selection list. An environment that can generate tasks fills it.",
    )
    fresh_tasks: int = Field(
        default=2000, ge=0, description="Fresh confirmation tasks that an environment is to generate, if it can."
    )


class NoForgettingSettings(FrozenModel):
    """Settings of the gate `no_forgetting`."""

    margin: float = Field(
        default=0.02, gt=0, lt=1, description="By so much less success than base or anchor is a candidate inferior."
    )
    alpha: float = Field(
        default=0.05, gt=0, lt=0.5, description="Highest chance of a wrong proof, and of a wrong REJECT."
    )
    tasks: int = Field(default=400, ge=1, description="Most confirmation tasks that are played.")
    min_tasks: int = Field(default=30, ge=1, description="With fewer a person decides, unless there is a proof.")
    require: Literal["proof", "when_possible", "no_harm"] = Field(
        default="when_possible",
        description="What promotes: proved non-inferiority; the same only where the tasks could prove it with a power "
        "of 0.8; or merely not to be significantly worse.",
    )


class GoldenSettings(FrozenModel):
    """Settings of the gate `golden`: tasks that the operator pins. They are never trained on, whatever their hash."""

    tasks: tuple[Identity, ...] = Field(default=(), description="The ids of the pinned tasks.")
    file: Path | None = Field(
        default=None, description="A file with one more id a line; empty lines and those after a # are passed over."
    )
    verdict: Literal["HOLD", "REJECT"] = Field(
        default="HOLD", description="The verdict on a candidate with a new failure."
    )

    def with_file(self) -> Self:
        """The same with the file's ids among `tasks`, so that all processes have one set.

        Raises `ConfigurationError` for a file that cannot be read.
        """
        if self.file is None:
            return self
        try:
            lines = [line.partition("#")[0].strip() for line in self.file.read_text(encoding="utf-8-sig").splitlines()]
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigurationError(
                f"the golden tasks cannot be read: {error}. Correct gate.golden.file, or make the file."
            ) from error
        tasks = dict.fromkeys([*self.tasks, *filter(None, lines)])
        return self.model_validate({**self.model_dump(exclude={"file"}), "tasks": tuple(tasks)})

    @model_validator(mode="after")
    def _once_each(self) -> Self:
        if len(set(self.tasks)) < len(self.tasks):
            raise ValueError("a golden task is named twice")
        return self


class SlicesSettings(FrozenModel):
    """Settings of the gate `slices`."""

    alpha: float = Field(default=0.05, gt=0, lt=0.5, description="Chance that a sound candidate is held for any slice.")
    min_tasks: int = Field(default=10, ge=1, description="Smaller slices are not tested.")


class GateSettings(FrozenModel):
    """Settings of the gates."""

    gates: tuple[str, ...] = Field(
        default=("improvement", "sentinels", "no_forgetting", "golden", "slices", "collapse", "memorisation"),
        min_length=1,
        description="The gates that a candidate must pass, in their order.",
    )
    spending: Spending = Field(
        default="lord",
        description="How alpha is spent: `lord` over all gates of the installation together; `constant` gives each "
        "gate the whole of it, and then promises nothing about many gates.",
    )
    alpha: float = Field(
        default=0.05,
        gt=0,
        lt=0.5,
        description="Highest share of promotions that are wrong (`lord`), or probability that a gate promotes wrongly.",
    )
    gain: float = Field(
        default=0.05, gt=0, lt=1, description="Gain in success that gates look for: they stop where it is out of reach."
    )
    min_tasks: int = Field(
        default=150, ge=1, description="A list with fewer held-out tasks than this gives no verdict at all."
    )
    improvement: ImprovementSettings = ImprovementSettings()
    rollouts: RolloutSettings = RolloutSettings()
    sentinels: SentinelSettings = SentinelSettings()
    time_limit_s: float = Field(
        default=21_600.0,
        gt=0,
        description="Longest time of one gate, in seconds; one that takes longer is ended and is inconclusive.",
    )
    time_limits_s: dict[str, Annotated[float, Field(gt=0)]] = Field(
        default={}, description="The same for single gates, by name."
    )
    most_excluded: float = Field(
        default=0.02, ge=0, le=1, description="Largest share of a gate's tasks that may fail to be played to their end."
    )
    collapse: CollapseSettings = CollapseSettings()
    memorisation: MemorisationSettings = MemorisationSettings()
    recorded: RecordedSettings = RecordedSettings()
    lists: TaskListSettings = TaskListSettings()
    no_forgetting: NoForgettingSettings = NoForgettingSettings()
    golden: GoldenSettings = GoldenSettings()
    slices: SlicesSettings = SlicesSettings()

    def time_limit_of(self, gate: str) -> float:
        """The longest time of the gate of that name, in seconds."""
        return self.time_limits_s.get(gate, self.time_limit_s)


class CanarySettings(FrozenModel):
    """Settings of canaries. A candidate that passed its gates then first answers a share of the episodes."""

    share: FiniteFloat = Field(
        default=0.0, ge=0, lt=1, description="Share of new episodes that a candidate answers; 0: it serves at once."
    )
    alpha: FiniteFloat = Field(
        default=0.05, gt=0, lt=0.5, description="Probability that an equal candidate is promoted or rolled back."
    )
    promotes: Literal["better", "not_worse"] = Field(
        default="better", description="What must be proved of a candidate before it serves all episodes."
    )
    margin: FiniteFloat = Field(
        default=0.05, gt=0, lt=0.5, description="A candidate that is less than this worse counts as not worse."
    )
    not_worse_episodes: int = Field(
        default=1000, ge=1, description="Judged episodes of the candidate before it can be promoted as not worse."
    )
    most_episodes: int = Field(
        default=10_000, ge=1, description="Judged episodes of both sides after which a canary ends without a proof."
    )
    most_hours: FiniteFloat = Field(default=168.0, gt=0, description="Hours after which it ends without a proof.")
    judge_s: FiniteFloat = Field(default=10.0, gt=0, description="How often the store is asked for outcomes.")
    least_errors: int = Field(
        default=5, ge=1, description="Errors of the inference server before they can end a canary."
    )

    @property
    def proof(self) -> float:
        """The least e-value that proves a direction: each may spend half of `alpha`."""
        return 2 / self.alpha


class ProbeSettings(FrozenModel):
    """Tolerances of attestation: how close a served adapter must be to the one that was trained."""

    tolerance: float = Field(
        default=0.15, gt=0, description="Highest mean absolute difference per token, in nats, to the trainer's record."
    )
    every_s: float = Field(
        default=300.0, gt=0, description="How often each inference server is attested again while an adapter serves."
    )
