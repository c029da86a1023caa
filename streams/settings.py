"""Settings of the stream floor; `daemon/config.py` composes them into the whole configuration."""

from pathlib import Path
from typing import Annotated, Literal, Self, TypeAlias

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    PlainSerializer,
    SecretStr,
    SerializationInfo,
    model_validator,
)

from streams.sandboxes.isolation.limits import Limits

REVEAL = "reveal secrets"


def _masked_unless_revealed(secret: SecretStr, info: SerializationInfo) -> str:
    return secret.get_secret_value() if info.context == REVEAL else str(secret)


# Masked wherever settings are shown. `context=REVEAL` is for handing them to a process of our own.
Secret: TypeAlias = Annotated[SecretStr, PlainSerializer(_masked_unless_revealed)]


class KafkaSecurity(BaseModel):
    """How clients and the cluster prove to each other who they are. Certificates and keys are PEM files."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = Field(
        default="PLAINTEXT", description="What the cluster's listener speaks."
    )
    cafile: Path | None = Field(
        default=None, description="Authorities that may sign the brokers' certificates; none means the system's."
    )
    certfile: Path | None = Field(default=None, description="The client's certificate, where brokers ask for one.")
    keyfile: Path | None = Field(default=None, description="The key of `certfile`, not encrypted.")
    check_hostname: bool = Field(default=True, description="Whether a broker's certificate must bear its host's name.")
    mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = Field(
        default="SCRAM-SHA-512", description="The SASL mechanism."
    )
    username: str = Field(default="", description="The SASL user.")
    password: Secret = Field(default=SecretStr(""), description="The SASL user's password; never shown.")

    @property
    def encrypted(self) -> bool:
        return self.protocol in ("SSL", "SASL_SSL")

    @property
    def authenticated(self) -> bool:
        """Whether by SASL."""
        return self.protocol in ("SASL_PLAINTEXT", "SASL_SSL")

    @model_validator(mode="after")
    def _nothing_is_missing_or_ignored(self) -> Self:
        if {bool(self.username), bool(self.password.get_secret_value())} != {self.authenticated}:
            raise ValueError("username and password belong to SASL_PLAINTEXT and SASL_SSL, which need both")
        if not self.encrypted and (self.cafile or self.certfile or self.keyfile):
            raise ValueError("cafile, certfile and keyfile belong to the protocols SSL and SASL_SSL")
        if (self.certfile is None) != (self.keyfile is None):
            raise ValueError("certfile and keyfile need each other")
        return self


class KafkaSettings(BaseModel):
    """Where the log is and how it is read."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    bootstrap: str = Field(
        default="", description="Addresses host:port, comma-separated; empty starts the embedded broker on loopback."
    )
    security: KafkaSecurity = Field(default=KafkaSecurity(), description="TLS and SASL.")
    partitions: int = Field(default=4, ge=1, description="Partitions of each topic that is created.")
    replication: int = Field(default=1, ge=1, description="Replicas of each topic that is created.")
    events_topic: str = Field(default="ratchet.events", description="What agents publish.")
    branches_topic: str = Field(default="ratchet.branches", description="Episodes whose states are to be branched.")
    transitions_topic: str = Field(default="ratchet.transitions", description="What became of each state.")
    dead_letters_topic: str = Field(default="ratchet.dead-letters", description="What could not be read.")
    spans_topic: str = Field(default="ratchet.spans", description="OpenTelemetry spans on their way to events.")
    raw_retention_h: int = Field(
        default=168, ge=1, description="Hours that topics made by Ratchet keep what agents sent; it is not redacted."
    )
    group_prefix: str = Field(default="ratchet", description="Consumer groups are named PREFIX-ROLE.")
    stall_timeout_s: float = Field(
        default=120.0,
        ge=6,  # commits come seconds after the work
        description="A worker that reads nothing for so long, though there are records, ends.",
    )
    session_timeout_s: float = Field(
        default=10.0, gt=0, description="Silence after which a worker is dead; Tansu delays joins by about this much."
    )

    @property
    def topics(self) -> tuple[str, ...]:
        return (*self.raw_topics, self.branches_topic, self.transitions_topic)

    @property
    def raw_topics(self) -> tuple[str, ...]:
        """Topics that hold what agents sent as they sent it."""
        return (self.events_topic, self.spans_topic, self.dead_letters_topic)


class StoreSettings(BaseModel):
    """The DuckDB file and the HTTP interface of the process that writes it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: Path = Field(default=Path(".ratchet/store.duckdb"), description="The DuckDB file; one process writes it.")
    host: str = Field(default="127.0.0.1", description="Where the query API listens. It has no authentication.")
    port: int = Field(default=8401, ge=0, le=65535, description="Port of the query API.")
    batch: int = Field(default=1000, ge=1, description="Most records that are fetched at once.")
    batch_s: float = Field(default=0.5, gt=0, description="Longest wait, in seconds, for a batch to fill.")
    memory: str = Field(default="1GB", description="DuckDB's memory limit.")


Isolation: TypeAlias = Literal["auto", "bubblewrap", "landlock", "none"]
SelectorName: TypeAlias = Literal["uniform", "novelty", "curiosity", "last_steps"]


class RecoverySettings(BaseModel):
    """How failed episodes of policies are gone on from."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    attempts: int = Field(default=4, ge=0, description="Continuations of one failed episode; 0 leaves it as it is.")
    steps: int = Field(default=8, ge=1, description="Most steps of a continuation.")
    temperature: float = Field(default=1.0, ge=0, description="At which the policy goes on.")
    selector: SelectorName = Field(default="uniform", description="Which states are gone on from.")
    most: int = Field(default=1, ge=1, description="Most recoveries kept of one episode: the shortest.")


class BranchingSettings(BaseModel):
    """What is tried at the states of a trusted episode, and with what means."""

    model_config = ConfigDict(frozen=True, extra="forbid")

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
    boring: float = Field(
        default=0.0,
        ge=0,
        description="If adaptive: what the policy foresees with a loss below this, in nats per token, is not new.",
    )
    samples: int = Field(default=6, ge=0, description="Replies drawn from the policy at one state; many are repeats.")
    temperatures: tuple[Annotated[float, Field(gt=0)], ...] = Field(
        default=(0.8, 1.2),
        min_length=1,
        description="Samples are split among them. Hotter ones add mostly what the environment does not understand.",
    )
    invalid_share: float = Field(
        default=0.3, ge=0, le=1, description="Largest share of alternatives that the environment does not understand."
    )
    model: str = Field(default="assistant", description="The model that proposes: an alias, an adapter or the base.")
    policy_url: str = Field(default="http://127.0.0.1:8420", description="The OpenAI-compatible server of the policy.")
    policy_patience_s: float = Field(
        default=30.0, ge=0, description="How long a silent policy is asked again before valid actions alone must do."
    )
    sandboxes: int = Field(default=1, ge=1, description="Sandbox processes of each environment.")
    step_timeout_s: float = Field(default=10.0, gt=0, description="Longest time, in seconds, for a step or a reset.")
    isolation: Isolation = Field(
        default="auto", description="What keeps sandboxes apart from the machine; auto is the best that works here."
    )
    limits: Limits = Field(default=Limits(), description="What one sandbox process may use.")
    environments: dict[str, dict[str, JsonValue]] = Field(
        default={}, description="Settings of environments that have some, by the environment's name."
    )
    recovery: RecoverySettings = Field(default=RecoverySettings(), description="What is done with failed episodes.")
    episodes: int = Field(default=8, ge=1, description="Episodes branched at the same time.")
    seed: int = Field(default=0, description="Seed of the valid actions that are drawn.")
