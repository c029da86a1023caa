"""Settings of branching and of recovery from failed episodes; the branch role takes them."""

from typing import Annotated, Literal, TypeAlias

from pydantic import Field, SecretStr

from ratchet_client.settings import FrozenModel, Secret, ServerUrl
from streams.environments.harness import ChatHarness
from streams.policy.client import Sampling
from streams.sandboxes.settings import SandboxSettings

SelectorName: TypeAlias = Literal["uniform", "novelty", "curiosity"]


class RecoverySettings(FrozenModel):
    """Settings of recovery: how failed episodes of policies are resumed."""

    attempts: int = Field(default=4, ge=0, description="Continuations of one failed episode; 0 leaves it as it is.")
    steps: int = Field(default=8, ge=1, description="Most steps of a continuation.")
    temperature: float = Field(default=1.0, ge=0, le=2, description="At which the policy continues.")
    selector: SelectorName = Field(default="uniform", description="Which states are resumed.")
    most: int = Field(default=1, ge=1, description="Most recoveries kept of one episode: the shortest.")


class BranchingSettings(SandboxSettings):
    """Settings of branching: what is tried at the states of a trusted episode, and in which sandboxes."""

    alternatives: int = Field(default=3, ge=1, description="Most alternatives at one state.")
    branches_per_episode: int | None = Field(
        default=None, ge=1, description="Most alternatives in one episode; none means all states get all of theirs."
    )
    branches_per_minute: int | None = Field(
        default=None, ge=1, description="Most alternatives of one worker in a minute; none means as fast as it goes."
    )
    selector: SelectorName = Field(default="uniform", description="Which states get more of an episode's budget.")
    adaptive: bool = Field(
        default=False, description="Whether a state gets its alternatives in rounds, while they bring something new."
    )
    round: int = Field(default=2, ge=1, description="Alternatives of one state in a round, if adaptive.")
    samples: int = Field(default=6, ge=0, description="Replies drawn from the policy at one state; many are repeats.")
    temperatures: tuple[Annotated[float, Field(gt=0, le=2)], ...] = Field(
        default=(0.8, 1.2),
        min_length=1,
        description="Samples are split among them. Hotter ones add mostly what the environment does not understand.",
    )
    max_tokens: int | None = Field(
        default=None, ge=1, description="Longest reply of the policy, in tokens; none means the environment's limit."
    )
    stop: tuple[str, ...] | None = Field(
        default=None, description="Texts that end a reply; none means those of the environment."
    )
    invalid_share: float = Field(
        default=0.3, ge=0, le=1, description="Largest share of alternatives that the environment does not understand."
    )
    model: str = Field(default="assistant", description="The model that proposes: an alias, an adapter or the base.")
    policy_url: ServerUrl = Field(
        default="http://127.0.0.1:8420", description="The OpenAI-compatible server of the policy, with or without /v1."
    )
    policy_token: Secret = Field(
        default=SecretStr(""), description="Its API key, if it wants one; by default the first of serving.tokens."
    )
    policy_patience_s: float = Field(
        default=30.0,
        ge=0,
        description="How long an unavailable policy is asked again before valid actions alone must do.",
    )
    recovery: RecoverySettings = Field(default=RecoverySettings(), description="What is done with failed episodes.")
    episodes: int = Field(default=8, ge=1, description="Episodes branched at the same time.")
    seed: int = Field(default=0, description="Seed of the valid actions that are drawn.")

    def sampling(self, temperature: float, harness: ChatHarness) -> Sampling:
        """Sampling parameters for the policy: within the limits of the harness, unless others are set."""
        own = Sampling(temperature=temperature, max_tokens=self.max_tokens, stop=self.stop)
        return own.within(harness.max_tokens, harness.stop)
