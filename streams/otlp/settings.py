"""Settings of the otlp role; `daemon/config.py` composes them into the whole configuration."""

from typing import Annotated

from pydantic import Field

from ratchet_client.settings import FrozenModel, Secret

MEBIBYTE = 2**20


class OtlpSettings(FrozenModel):
    """Settings of the OTLP receiver: its address and its limits."""

    host: str = Field(default="127.0.0.1", description="Where it listens; off loopback it needs tokens.")
    port: int = Field(default=4318, ge=0, le=65535, description="Port of OTLP over HTTP.")
    tokens: dict[Annotated[str, Field(min_length=1)], Annotated[Secret, Field(min_length=16)]] = Field(
        default={}, description="Bearer tokens by principal, with the role `record`, beside those of `ratchet token`."
    )
    max_request_bytes: int = Field(default=16 * MEBIBYTE, ge=1, description="Most bytes of a request, inflated.")
    max_record_bytes: int = Field(
        default=900_000, ge=1, description="Most bytes of one span; the brokers' own limit is about 1 MB."
    )
    max_in_flight: int = Field(default=16, ge=1, description="Requests worked on at once; more are told to retry.")
    publish_timeout_s: float = Field(default=5.0, ge=1, description="Longest wait for the log to take a request.")
    retry_after_s: int = Field(default=2, ge=1, description="What exporters are told to wait before they try again.")
