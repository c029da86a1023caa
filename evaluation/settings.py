"""The settings of this layer; `daemon/config.py` composes them."""

from pydantic import Field

from streams.policy.client import Sampling
from streams.settings import FrozenModel


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
        default=40, ge=0, description="Wins that are replayed in a process each; the others share fresh ones."
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


class GateSettings(FrozenModel):
    """Settings of the gates."""

    gates: tuple[str, ...] = Field(
        default=("improvement", "sentinels"),
        min_length=1,
        description="The gates that a candidate must pass, in their order.",
    )
    alpha: float = Field(default=0.05, gt=0, lt=0.5, description="Highest p-value that counts as proof, in either way.")
    min_tasks: int = Field(default=150, ge=1, description="Fewer paired tasks than this give no verdict at all.")
    rollouts: RolloutSettings = RolloutSettings()
    sentinels: SentinelSettings = SentinelSettings()
    most_excluded: float = Field(
        default=0.02, ge=0, le=1, description="Largest share of a gate's tasks that may fail to be played to their end."
    )


class ProbeSettings(FrozenModel):
    """Tolerances of attestation: how close a served adapter must be to the one that was trained."""

    tolerance: float = Field(
        default=0.15, gt=0, description="Highest mean absolute difference per token, in nats, to the trainer's record."
    )
