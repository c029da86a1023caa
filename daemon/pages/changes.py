"""Changes that a person makes on the page of decisions. Each goes to the control API, with who it is and why."""

from collections.abc import Awaitable, Callable, Mapping

from pydantic import ValidationError
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from daemon.pages.forms import read_form
from daemon.pages.parts import Parts, visit_of
from daemon.pages.queue import queue_page
from daemon.pages.rendering import HEADERS, url
from daemon.registry.schemas import DecisionRequest, HoldRequest, RollbackRequest
from daemon.serving.control_client import ControlClient
from ratchet_client.errors import RatchetError
from streams.errors import RequestRefusedError

Change = Callable[[ControlClient, Mapping[str, str], str], Awaitable[object]]


async def _approve(control: ControlClient, fields: Mapping[str, str], actor: str) -> object:
    return await control.approve(_decision(fields, actor))


async def _reject(control: ControlClient, fields: Mapping[str, str], actor: str) -> object:
    return await control.reject(_decision(fields, actor))


async def _restore(control: ControlClient, fields: Mapping[str, str], actor: str) -> object:
    return await control.restore(_decision(fields, actor))


async def _roll_back(control: ControlClient, fields: Mapping[str, str], actor: str) -> object:
    # Named, and not what served before as the server has it by now: a person decides on what the page has shown.
    wanted = {"to": fields.get("to", ""), "reason": fields.get("reason", "").strip(), "actor": actor}
    return await control.rollback(RollbackRequest.model_validate(wanted))


async def _hold(control: ControlClient, fields: Mapping[str, str], actor: str) -> object:
    return await control.hold(_said(fields, actor))


async def _resume(control: ControlClient, fields: Mapping[str, str], actor: str) -> None:
    await control.resume(_said(fields, actor))


CHANGES: dict[str, Change] = {
    "approve": _approve,
    "reject": _reject,
    "restore": _restore,
    "rollback": _roll_back,
    "hold": _hold,
    "resume": _resume,
}


def handler(name: str) -> Callable[[Request, Parts], Awaitable[Response]]:
    """What answers to the form of the change `name`: the page of decisions, with the change or why there is none.

    It is made to the group that the form's page showed.
    """

    async def answer(request: Request, parts: Parts) -> Response:
        fields = await read_form(request, parts)
        tried = {**fields, "change": name}
        try:
            async with parts.control(request) as control:
                await CHANGES[name](control, fields, visit_of(request).actor)
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(map(str, first["loc"]))
            message = "Nothing was changed: say why." if place == "reason" else f"{place}: {first['msg']}"
            return await queue_page(request, parts, status=422, error=message, tried=tried)
        except RatchetError as error:
            status = error.status if isinstance(error, RequestRefusedError) else 503
            return await queue_page(request, parts, status=status, error=str(error), tried=tried)
        return RedirectResponse(url("/pages/queue", done=name, group=parts.group or None), 303, HEADERS)

    return answer


def _decision(fields: Mapping[str, str], actor: str) -> DecisionRequest:
    wanted = {"digest": fields.get("adapter", ""), "reason": fields.get("reason", ""), "actor": actor}
    return DecisionRequest.model_validate(wanted)


def _said(fields: Mapping[str, str], actor: str) -> HoldRequest:
    return HoldRequest.model_validate({"reason": fields.get("reason", ""), "actor": actor})
