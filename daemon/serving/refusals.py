"""Errors of the gateway itself, in the shape that the client of each API reads."""

from collections.abc import Mapping

import structlog
from starlette.responses import JSONResponse

from streams.runtime.http_errors import anthropic_error, error_reply, error_response

log = structlog.get_logger()

RETRY_AFTER_S = 2
_ANTHROPIC = "/v1/messages"


class Refused(Exception):
    """A request that the gateway answers with an error: the message says what is wrong and what to do."""

    def __init__(self, status: int, message: str, code: str = "", headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.headers = headers if headers is not None else retry_headers(status)


def retry_headers(status: int) -> dict[str, str]:
    return {"Retry-After": str(RETRY_AFTER_S)} if status in (429, 503, 504) else {}


def is_anthropic(path: str) -> bool:
    """Return whether the clients of a path read Anthropic's errors."""
    return path == _ANTHROPIC or path.startswith(_ANTHROPIC + "/")


def refusal(path: str, refused: Refused) -> JSONResponse:
    """The response to a request for `path`."""
    if not is_anthropic(path):
        return error_response(refused.status, str(refused), refused.code, headers=refused.headers)
    log.info("request refused", status=refused.status, path=path, code=refused.code)
    return JSONResponse(anthropic_error(refused.status, str(refused)).model_dump(), refused.status, refused.headers)


def error_event(path: str, status: int, message: str) -> bytes:
    """An error as an event of a stream whose status line has long been sent."""
    if is_anthropic(path):
        return f"\n\nevent: error\ndata: {anthropic_error(status, message).model_dump_json()}\n\n".encode()
    return f"\n\ndata: {error_reply(status, message).model_dump_json()}\n\n".encode()
