"""The learner's progress as it goes: server-sent events (WHATWG HTML, section 9.2) with a piece of a page each.

The script of the pages puts it where the page had it at first.
"""

import asyncio
from collections.abc import AsyncIterator

from pydantic import Field
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from daemon.console import learner_told
from daemon.pages.parts import Parts, visit_of
from daemon.pages.rendering import HEADERS, fragment
from daemon.registry.learner_status import LearnerReport, learner_report
from ratchet_client.settings import FrozenModel
from streams.access.tokens import AccessRole
from streams.errors import RequestRefusedError

EVERY_S = 1.0
KEPT_ALIVE_S = 15.0
MOST_WATCHING = 32
_watching: set[int] = set()


class Progress(FrozenModel):
    """What the learner is at: a sentence, and how much of it is done; `total` is 0 where nobody knows."""

    told: str
    running: bool
    done: int = 0
    total: int = 0
    last: str = Field(default="", description="The verdict of the cycle that ended last.")


def progress(report: LearnerReport | None) -> Progress:
    """The progress that a learner tells; None is a serve role that does not know of one."""
    if report is None:
        return Progress(told="not known", running=False)
    status, last = report.status, report.last_cycle
    return Progress(
        told=learner_told(report),
        running=report.running,
        done=status.done if status is not None and report.running else 0,
        total=status.total if status is not None and report.running else 0,
        last="" if last is None else f"{last.verdict.value}: {last.reason}",
    )


async def events(request: Request, parts: Parts) -> Response:
    """The stream. It ends with the session that asked for it, when its token may read no more, or the role ends."""
    if len(_watching) >= MOST_WATCHING:
        raise RequestRefusedError(503, "too_many_streams", "too many pages are watching: close some")
    headers = {**HEADERS, "X-Accel-Buffering": "no"}
    return StreamingResponse(_stream(request, parts), media_type="text/event-stream", headers=headers)


async def _stream(request: Request, parts: Parts) -> AsyncIterator[bytes]:
    mark, session = id(request), visit_of(request).session
    signed_in = parts.sessions.token(session)
    _watching.add(mark)
    told, silent = "", 0.0
    try:
        while parts.sessions.token(session) == signed_in and _may_still_read(request, parts):
            report = await asyncio.to_thread(lambda: learner_report(parts.home, parts.registry.audit.read()))
            piece = fragment("progress.html", progress=progress(report))
            if piece != told:
                told, silent = piece, 0.0
                data = "".join(f"data: {line}\n" for line in piece.splitlines())
                yield f"event: progress\n{data}\n".encode(errors="backslashreplace")
            elif silent >= KEPT_ALIVE_S:
                silent = 0.0
                yield b": still here\n\n"
            await asyncio.sleep(EVERY_S)
            silent += EVERY_S
    finally:
        _watching.discard(mark)


def _may_still_read(request: Request, parts: Parts) -> bool:
    try:
        parts.access.admit(request.scope, AccessRole.READ)
    except RequestRefusedError:
        return False
    return True
