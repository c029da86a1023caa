"""Settings of the otlp role; `daemon/config.py` composes them into the whole configuration."""

from pathlib import Path
from typing import Annotated

from pydantic import Field

from streams.settings import FrozenModel, Secret

MEBIBYTE = 2**20


class OtlpSettings(FrozenModel):
    """Settings of the OTLP receiver: its address, its limits, and when a trace counts as complete."""

    host: str = Field(default="127.0.0.1", description="Where it listens. Off loopback, set tokens.")
    port: int = Field(default=4318, ge=0, le=65535, description="Port of OTLP over HTTP.")
    path: Path = Field(default=Path(".ratchet/otlp.sqlite"), description="Spans that are not assembled yet.")
    tokens: dict[Annotated[str, Field(min_length=1)], Annotated[Secret, Field(min_length=16)]] = Field(
        default={}, description="Bearer tokens by principal. If there are any, every request must bring one."
    )
    evaluations: tuple[str, ...] = Field(
        default=(), description="Names of the evaluations that judge an episode; empty takes them all."
    )
    max_request_bytes: int = Field(default=16 * MEBIBYTE, ge=1, description="Most bytes of a request, inflated.")
    max_record_bytes: int = Field(
        default=900_000, ge=1, description="Most bytes of one span or event; the brokers' own limit is about 1 MB."
    )
    max_in_flight: int = Field(default=16, ge=1, description="Requests worked on at once; more are told to retry.")
    max_open_bytes: int = Field(
        default=64 * MEBIBYTE, ge=1, description="A trace or conversation that is larger is assembled at once."
    )
    publish_timeout_s: float = Field(default=5.0, ge=1, description="Longest wait for the log to take a request.")
    retry_after_s: int = Field(default=2, ge=1, description="What exporters are told to wait before they try again.")
    settle_s: float = Field(
        default=10.0, gt=0, description="Silence after which a trace with its root is complete: exporters send late."
    )
    idle_s: float = Field(default=60.0, gt=0, description="Silence after which a trace without a root is complete.")
    conversation_idle_s: float = Field(default=600.0, gt=0, description="Silence after which a conversation is over.")
    retention_s: float = Field(
        default=7 * 86_400.0, gt=0, description="How long repeated spans and late evaluations are recognised."
    )
