"""The settings of a producer, checked when it is made: what is wrong with them is said then, and nothing later."""

from pathlib import Path
from typing import Literal, Self

from kafka.codec import has_gzip, has_lz4, has_snappy, has_zstd
from pydantic import Field, ValidationError, model_validator

from ratchet_client.errors import ConfigurationError
from ratchet_client.feedback_request import fault_of
from ratchet_client.kafka.security import KafkaSecurity
from ratchet_client.settings import FrozenModel

Compression = Literal["gzip", "lz4", "snappy", "zstd"]
_CODECS = {"gzip": has_gzip, "lz4": has_lz4, "snappy": has_snappy, "zstd": has_zstd}


class ProducerSettings(FrozenModel):
    """The arguments of `Producer`, which says what each means."""

    bootstrap: str = Field(min_length=1)
    agent: str
    principal: str
    topic: str = Field(min_length=1)
    spool: Path | None
    durable: bool
    key: bytes | None
    security: KafkaSecurity
    memory_bytes: int = Field(ge=0)
    spool_bytes: int = Field(ge=0)
    flush_timeout_s: float = Field(ge=0)
    compression: Compression | None

    @classmethod
    def of(cls, **arguments: object) -> Self:
        """Raises `ConfigurationError`, which names the argument and has nothing of its content."""
        try:
            return cls.model_validate(arguments)
        except ValidationError as error:
            faults = error.errors(include_input=False, include_url=False)
            raise ConfigurationError(f"Producer(...) cannot be made: {'; '.join(map(fault_of, faults))}") from None

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.durable and self.spool is None:
            raise ValueError("a durable producer needs a folder: Producer(..., spool=Path(...))")
        if self.compression is not None and not _CODECS[self.compression]():
            packages = "lz4 python-snappy zstandard"
            raise ValueError(f"the codec {self.compression} is not installed: run `pip install {packages}`")
        return self
