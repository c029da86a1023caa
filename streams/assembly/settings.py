"""Settings of the assemble role; `daemon/config.py` composes them into the whole configuration."""

from pathlib import Path

from pydantic import Field

from ratchet_client.settings import FrozenModel

MEBIBYTE = 2**20


class AssemblySettings(FrozenModel):
    """Settings of the assembler: its address, its state, and when a trace or a conversation counts as complete."""

    host: str = Field(
        default="127.0.0.1", description="Where its status and metrics are; off loopback they need tokens."
    )
    port: int = Field(default=8402, ge=0, le=65535, description="Port of its status and metrics.")
    path: Path = Field(default=Path(".ratchet/assembly.sqlite"), description="What is not assembled yet.")
    environment: str = Field(
        default="",
        max_length=512,
        description="The environment of episodes whose calls or spans name none; by default domain.environment, and "
        "without it `gateway` and `otlp`, which have no sandbox.",
    )
    evaluations: tuple[str, ...] = Field(
        default=(), description="Names of OpenTelemetry evaluations that judge an episode; empty takes them all."
    )
    max_event_bytes: int = Field(
        default=900_000, ge=1, description="Most bytes of one event; the brokers' own limit is about 1 MB."
    )
    max_open_bytes: int = Field(
        default=64 * MEBIBYTE, ge=1, description="A trace or conversation that is larger is assembled at once."
    )
    call_idle_s: float = Field(
        default=120.0, gt=0, description="Silence after which a conversation of captured calls without ids is over."
    )
    episode_idle_s: float = Field(
        default=600.0, gt=0, description="Silence after which an episode or conversation that calls name is over."
    )
    settle_s: float = Field(
        default=10.0,
        gt=0,
        description="Silence after which a trace with its root, or calls with feedback, are complete.",
    )
    idle_s: float = Field(default=60.0, gt=0, description="Silence after which a trace without a root is complete.")
    conversation_idle_s: float = Field(
        default=600.0, gt=0, description="Silence after which a conversation that spans name is over."
    )
    history_s: float = Field(
        default=86_400.0, gt=0, description="How long a response can be named by `previous_response_id`."
    )
    retention_s: float = Field(
        default=7 * 86_400.0,
        gt=0,
        description="How long repetitions, late evaluations and late feedback are known.",
    )
