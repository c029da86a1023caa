"""The one body of an error over HTTP, which is OpenAI's: the servers answer with it, and `http_client.py` reads it.

Three interfaces have the body that their own specification prescribes: the OTLP receiver, the OpenEnv server and
Anthropic's Messages.
"""

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any, Literal

import structlog
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from ratchet_client.errors import RatchetError
from ratchet_client.settings import FrozenModel
from streams.errors import RequestRefusedError
from streams.runtime.http_bodies import JsonRoute

log = structlog.get_logger()

UNEXPECTED = "the server failed to answer this request, unexpectedly; its log says why"

# A body with thousands of wrong fields must not make a message of that size.
_MOST_TOLD = 20
_LONGEST_MESSAGE = 2000


class ErrorBody(FrozenModel):
    """`message` is for people, `code` for programs; `param` is the field of the request that is wrong, if one is."""

    message: str
    type: str
    code: str
    param: str | None = None


class ErrorReply(FrozenModel):
    error: ErrorBody


class AnthropicError(FrozenModel):
    type: str
    message: str


class AnthropicErrorReply(FrozenModel):
    """The body of an error as Anthropic's API has it."""

    type: Literal["error"] = "error"
    error: AnthropicError


_ANTHROPIC_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    529: "overloaded_error",
}


def anthropic_error(status: int, message: str) -> AnthropicErrorReply:
    """The body that goes with `status` where a client of Anthropic's API asks."""
    kind = _ANTHROPIC_TYPES.get(status, "invalid_request_error" if status < 500 else "api_error")
    return AnthropicErrorReply(error=AnthropicError(type=kind, message=error_reply(status, message).error.message))


def error_reply(status: int, message: str, code: str = "", param: str | None = None) -> ErrorReply:
    """The body that goes with `status`. Without a `code` of its own an error has the status's name.

    >>> error_reply(503, "the log is full").error.code
    'service_unavailable'
    """
    kind = "invalid_request_error" if status < HTTPStatus.TOO_MANY_REQUESTS else "server_error"
    if status == HTTPStatus.TOO_MANY_REQUESTS:
        kind = "rate_limit_error"
    code = code or (HTTPStatus(status).name.lower() if status in set(HTTPStatus) else str(status))
    # A message may quote the request, and half of a surrogate pair has no UTF-8.
    message = message[:_LONGEST_MESSAGE].encode(errors="backslashreplace").decode()
    return ErrorReply(error=ErrorBody(message=message, type=kind, code=code, param=param))


def error_response(
    status: int, message: str, code: str = "", param: str | None = None, headers: Mapping[str, str] | None = None
) -> JSONResponse:
    reply = error_reply(status, message, code, param)
    # Not the message, which may quote the request; the client has it.
    log.info("request refused", status=status, code=reply.error.code, param=param)
    return JSONResponse(reply.model_dump(), status, headers)


def answer_errors(app: FastAPI, conflicts: tuple[type[RatchetError], ...] = (), invalid: int = 422) -> None:
    """Have `app` answer every error with an `ErrorReply`. Call it before the app has routes.

    A `RequestRefusedError` has its own status. Of the other errors of Ratchet, `conflicts` are answered with 409, for
    what may not be, and the rest with 503, for what cannot be now. `invalid` is the status of a request whose fields
    are wrong; its message names them all. A body that is not JSON is a 400 (`http_bodies.py`), an unexpected error
    a 500.
    """
    app.router.route_class = JsonRoute

    @app.exception_handler(RatchetError)
    async def failed(_: Request, error: RatchetError) -> JSONResponse:
        if isinstance(error, RequestRefusedError):
            return error_response(error.status, str(error), error.code, headers=error.headers)
        return error_response(409 if isinstance(error, conflicts) else 503, str(error))

    @app.exception_handler(HTTPException)
    async def refused(_: Request, error: HTTPException) -> JSONResponse:
        return error_response(error.status_code, error.detail, headers=error.headers)

    @app.exception_handler(RequestValidationError)
    async def wrong(_: Request, error: RequestValidationError) -> JSONResponse:
        message, param = wrong_fields(error.errors())
        return error_response(invalid, message, "invalid_request", param)

    @app.exception_handler(ClientDisconnect)
    async def gone(_: Request, __: ClientDisconnect) -> Response:
        # Nobody reads it; without it uvicorn logs a client that leaves as an error of ours.
        return Response(status_code=400)

    @app.exception_handler(Exception)
    async def unexpected(_: Request, error: Exception) -> JSONResponse:
        # Starlette raises it again behind this answer: uvicorn logs where it came from, and ends the connection.
        return error_response(500, UNEXPECTED, headers={"Connection": "close"})


def wrong_fields(errors: Sequence[Any]) -> tuple[str, str | None]:
    """A message that names every wrong field, those with the same fault together; and the first of them."""
    fields: dict[str, list[str]] = {}
    places = [error["loc"] for error in errors]
    for error in errors:
        loc = error["loc"]
        if error["type"] == "too_short" and any(each != loc and each[: len(loc)] == loc for each in places):
            continue  # pydantic counts only the items that are right
        where = ".".join(str(part) for part in loc[1:])
        named = fields.setdefault(error["msg"].replace("valid tuple", "valid list").replace("Tuple", "List"), [])
        if where not in named:
            named.append(where)
    told = [f"{', '.join(named[:_MOST_TOLD])}: {fault}".removeprefix(": ") for fault, named in fields.items()]
    message = "; ".join(told[:_MOST_TOLD])
    if len(told) > _MOST_TOLD or len(message) > _LONGEST_MESSAGE:
        # What is cut must not leave out a field.
        message = f"{', '.join(dict.fromkeys(name for named in fields.values() for name in named))}: refused; {message}"
    return message, next(iter(fields.values()))[0] or None
