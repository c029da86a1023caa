"""One task of a trial as both sides played it, message by message beside each other."""

from itertools import zip_longest

from starlette.requests import Request
from starlette.responses import Response

from daemon.pages.gates import read_trial
from daemon.pages.messages import Said, said, whole_message
from daemon.pages.parts import Parts, whole_number
from daemon.pages.rendering import page, url, whole
from daemon.registry.schemas import BASE
from evaluation.matches import Match
from evaluation.rollout_log import Entry
from ratchet_client.messages import Messages, same_message
from streams.errors import RequestRefusedError

OTHER, CANDIDATE = "other", "candidate"


async def match(request: Request, parts: Parts) -> Response:
    """The messages that both sides read at first, once, and how each went on."""
    found = await _found(request, parts)
    sides = {OTHER: _talk(found.by_other), CANDIDATE: _talk(found.by_candidate)}
    common = _common(sides[OTHER], sides[CANDIDATE]) if all(sides.values()) else 0
    told = {
        side: [said(message, _address(request, side, number)) for number, message in enumerate(talk)]
        for side, talk in sides.items()
    }
    opening: list[Said] = told[OTHER][:common]
    rows = list(zip_longest(told[OTHER][common:], told[CANDIDATE][common:]))
    return page(
        request,
        parts,
        "match.html",
        title=f"{found.task.task_id[:80]}: {found.result.value}",
        match=found,
        adapter=request.query_params.get("adapter", ""),
        opening=opening,
        rows=rows,
        other=_named(found.other),
    )


async def text(request: Request, parts: Parts) -> Response:
    """The whole of one message."""
    found = await _found(request, parts)
    entry = found.by_other if request.query_params.get("side") == OTHER else found.by_candidate
    number, talk = whole_number(request.query_params.get("message", "")), _talk(entry)
    if number is None or number >= len(talk):
        raise RequestRefusedError(404, "not_found", "there is no such message")
    return whole(whole_message(talk[number]))


async def _found(request: Request, parts: Parts) -> Match:
    asked = request.query_params
    trial = await read_trial(parts, asked.get("adapter", ""))
    place = (asked.get("gate", ""), asked.get("task", ""), asked.get("repeat", "0"), asked.get("other", ""))
    for each in trial.matches:
        # As the address has it, which no odd character survives unescaped.
        task_id = each.task.task_id.encode(errors="backslashreplace").decode()
        if (each.gate, task_id, str(each.repeat), each.other) == place:
            return each
    raise RequestRefusedError(404, "not_found", "this task was not played in that trial, or it was played again since")


def _talk(entry: Entry | None) -> Messages:
    return () if entry is None or entry.rollout is None else entry.rollout.messages


def _common(one: Messages, other: Messages) -> int:
    count = 0
    for mine, theirs in zip(one, other, strict=False):
        if not same_message(mine, theirs):
            break
        count += 1
    return count


def _address(request: Request, side: str, number: int) -> str:
    asked = {name: request.query_params.get(name) for name in ("adapter", "gate", "task", "repeat", "other", "group")}
    return url("/pages/match/text", **asked, side=side, message=number)


def _named(adapter: str) -> str:
    return "the base model" if adapter == BASE else adapter[:12] if adapter else "nothing else"
