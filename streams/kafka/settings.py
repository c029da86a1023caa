"""Settings of the Kafka cluster; every role takes them."""

from pydantic import ConfigDict, Field

from ratchet_client.kafka.security import KafkaSecurity
from ratchet_client.settings import FrozenModel


class KafkaSettings(FrozenModel):
    """Settings of the Kafka cluster, its topics and how they are read."""

    model_config = ConfigDict(hide_input_in_errors=True)

    bootstrap: str = Field(
        default="", description="Addresses host:port, comma-separated; empty starts the embedded broker on loopback."
    )
    embedded_port: int = Field(
        default=8492, ge=0, le=65535, description="Port of the embedded broker; 0: any that is free."
    )
    security: KafkaSecurity = Field(default=KafkaSecurity(), description="TLS and SASL.")
    partitions: int = Field(default=4, ge=1, description="Partitions of each topic that is created.")
    replication: int = Field(default=1, ge=1, description="Replicas of each topic that is created.")
    events_topic: str = Field(default="ratchet.events", description="What agents publish.")
    branches_topic: str = Field(default="ratchet.branches", description="Episodes whose states are to be branched.")
    transitions_topic: str = Field(default="ratchet.transitions", description="What became of each state.")
    dead_letters_topic: str = Field(default="ratchet.dead-letters", description="What could not be read.")
    spans_topic: str = Field(default="ratchet.spans", description="OpenTelemetry spans on their way to events.")
    calls_topic: str = Field(default="ratchet.calls", description="Calls that the gateway captured, and feedback.")
    raw_retention_h: int = Field(
        default=168,
        ge=1,
        description="Hours that topics made by Ratchet keep records; what agents sent is not redacted.",
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
    def retention_ms(self) -> int:
        return self.raw_retention_h * 3_600_000

    @property
    def raw_topics(self) -> tuple[str, ...]:
        """Topics that hold what agents sent as they sent it."""
        return (self.events_topic, self.spans_topic, self.calls_topic, self.dead_letters_topic)
