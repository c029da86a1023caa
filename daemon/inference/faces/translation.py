"""From the fields of another API's request to the chat request that it is, or to a refusal in that API's own names."""

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ValidationError

from daemon.inference.requests import ChatRequest
from streams.calls.absence import AbsentContentError

_ModelT = TypeVar("_ModelT", bound=BaseModel)
_ReadT = TypeVar("_ReadT")


def read_request(kind: type[_ModelT], value: object) -> _ModelT:
    """The request. Raises `RequestValidationError`, as FastAPI does for the body of a route."""
    try:
        return kind.model_validate(value)
    except ValidationError as error:
        raise RequestValidationError([each | {"loc": ("body", *each["loc"])} for each in error.errors()]) from error


def read_field(name: str, read: Callable[[], _ReadT]) -> _ReadT:
    """Return `read()`. Raises `RequestValidationError` of the field `name` where it says that it is absent."""
    try:
        return read()
    except AbsentContentError as error:
        raise refused(name, f"{error}; correct it") from error


def chat_request(fields: Mapping[str, Any], names: Mapping[str, str]) -> ChatRequest:
    """The chat request with these fields; null is the same as leaving one out.

    `names` tells what other names the fields have in the request that is translated.
    Raises `RequestValidationError` of the fields that are wrong.
    """
    try:
        return ChatRequest.model_validate(fields)
    except ValidationError as error:
        raise RequestValidationError([_renamed(dict(each), names) for each in error.errors()]) from error


def refused(field: str, message: str) -> RequestValidationError:
    return RequestValidationError([{"type": "not_served", "loc": ("body", field), "msg": message, "input": None}])


def _renamed(error: dict[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    field, *rest = error["loc"] or ("body",)
    # A message of the request can be several of the chat, so its number there says nothing.
    rest = rest[1:] if field == "messages" else rest
    return error | {"loc": ("body", names.get(field, field), *rest)}
