"""The one body of an error over HTTP, which is OpenAI's: the servers answer with it, and `http_client.py` reads it.

Two interfaces have the body that their own specification prescribes: the OTLP receiver and the OpenEnv server.
"""

from collections.abc import Mapping
from http import HTTPStatus

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from streams.errors import RatchetError, RequestRefusedError
from streams.settings import FrozenModel

log = structlog.get_logger()


class ErrorBody(FrozenModel):
    """`message` is for people, `code` for programs; `param` is the field of the request that is wrong, if one is."""

    message: str
    type: str
    code: str
    param: str | None = None


class ErrorReply(FrozenModel):
    error: ErrorBody


def error_reply(status: int, message: str, code: str = "", param: str | None = None) -> ErrorReply:
    """The body that goes with `status`. Without a `code` of its own an error has the status's name.

    >>> error_reply(503, "the log is full").error.code
    'service_unavailable'
    """
    kind = "invalid_request_error" if status < HTTPStatus.TOO_MANY_REQUESTS else "server_error"
    code = code or HTTPStatus(status).name.lower()
    return ErrorReply(error=ErrorBody(message=message, type=kind, code=code, param=param))


def error_response(
    status: int, message: str, code: str = "", param: str | None = None, headers: Mapping[str, str] | None = None
) -> JSONResponse:
    reply = error_reply(status, message, code, param)
    log.info("request refused", status=status, code=reply.error.code, reason=message)
    return JSONResponse(reply.model_dump(), status, headers)


def answer_errors(app: FastAPI, conflicts: tuple[type[RatchetError], ...] = (), invalid: int = 422) -> None:
    """Have `app` answer every error that was foreseen with an `ErrorReply`.

    A `RequestRefusedError` has its own status. Of the other errors of Ratchet, `conflicts` are answered with 409, for
    what may not be, and the rest with 503, for what cannot be now. `invalid` is the status of a request whose fields
    are wrong.
    """

    @app.exception_handler(RatchetError)
    async def failed(_: Request, error: RatchetError) -> JSONResponse:
        if isinstance(error, RequestRefusedError):
            return error_response(error.status, str(error), error.code)
        return error_response(409 if isinstance(error, conflicts) else 503, str(error))

    @app.exception_handler(HTTPException)
    async def refused(_: Request, error: HTTPException) -> JSONResponse:
        return error_response(error.status_code, error.detail, headers=error.headers)

    @app.exception_handler(RequestValidationError)
    async def wrong(_: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"][1:])
        return error_response(invalid, f"{where}: {first['msg']}", "invalid_request", where or None)
