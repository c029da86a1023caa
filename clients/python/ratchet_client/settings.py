"""The base of the settings and data models of all packages."""

import re
from typing import Annotated, TypeAlias

from pydantic import (
    AfterValidator,
    AnyHttpUrl,
    BaseModel,
    ConfigDict,
    PlainSerializer,
    SecretStr,
    SerializationInfo,
    TypeAdapter,
    ValidationError,
)

REVEAL = "reveal secrets"


class FrozenModel(BaseModel):
    """The base of every model: immutable, and strict about its fields."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def _masked_unless_revealed(secret: SecretStr, info: SerializationInfo) -> str:
    return secret.get_secret_value() if info.context == REVEAL else str(secret)


# Masked wherever settings are shown. `context=REVEAL` is for handing them to a process of our own.
Secret: TypeAlias = Annotated[SecretStr, PlainSerializer(_masked_unless_revealed)]


_HTTP_URL = TypeAdapter(AnyHttpUrl)
_REMEDY = "write it as http://127.0.0.1:8000, with or without /v1"


def server_url(text: str) -> str:
    """The address of an OpenAI-compatible server, without the `/v1` and the slashes that clients write at its end.

    Raises `ValueError`, which says what to write, where `text` is no such address.

    >>> server_url("http://127.0.0.1:8000/v1/")
    'http://127.0.0.1:8000'
    """
    text = text.strip()
    if not re.match("https?://[^/]", text, re.IGNORECASE):
        raise ValueError(f"{text!r} does not begin with http:// or https:// and a host; {_REMEDY}")
    try:
        url = _HTTP_URL.validate_python(text)
    except ValidationError as error:
        raise ValueError(f"{text!r} is not the URL of a server: {error.errors()[0]['msg']}; {_REMEDY}") from error
    if url.query is not None or url.fragment is not None:
        raise ValueError(f"the URL {text!r} has a query or a fragment, which no request can keep; {_REMEDY}")
    return str(url).rstrip("/").removesuffix("/v1").rstrip("/")


ServerUrl: TypeAlias = Annotated[str, AfterValidator(server_url)]
ServerUrlIfAny: TypeAlias = Annotated[str, AfterValidator(lambda text: server_url(text) if text.strip() else "")]
