"""The base of the settings and data models of all packages."""

from typing import Annotated, TypeAlias

from pydantic import BaseModel, ConfigDict, PlainSerializer, SecretStr, SerializationInfo

REVEAL = "reveal secrets"


class FrozenModel(BaseModel):
    """The base of every model: immutable, and strict about its fields."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def _masked_unless_revealed(secret: SecretStr, info: SerializationInfo) -> str:
    return secret.get_secret_value() if info.context == REVEAL else str(secret)


# Masked wherever settings are shown. `context=REVEAL` is for handing them to a process of our own.
Secret: TypeAlias = Annotated[SecretStr, PlainSerializer(_masked_unless_revealed)]
