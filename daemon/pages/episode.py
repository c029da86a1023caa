"""One episode: its state and why, its steps with the branches that were tried beside them, its outcomes."""

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from daemon.pages.messages import Said, said, whole_message
from daemon.pages.parts import Parts, whole_number, within
from daemon.pages.rendering import page, url, whole
from ratchet_client.messages import MESSAGE, MESSAGES, Message, Messages
from ratchet_client.settings import FrozenModel
from streams.branch_events import STEPS
from streams.errors import RequestRefusedError
from streams.store.client import StoreClient
from streams.store.database import Parameter
from streams.store.episode_state import EpisodeState
from streams.store.episodes import EpisodeReport, StepSummary, episode_report, whole_id

MOST_STEPS = 200
MOST_BRANCHES = 1000

_PARTS = ("action", "observation", "messages", "recovery")
_STEPS = """
    SELECT sequence, step, action, observation FROM transitions
    WHERE origin = 'production' AND episode_id = $episode_id ORDER BY step, sequence LIMIT $limit
"""
_BRANCHES = """
    SELECT sequence, step, action, observation, score, source, fidelity, done FROM transitions
    WHERE origin = 'branch' AND episode_id = $episode_id ORDER BY step, sequence LIMIT $limit
"""
_RECOVERIES = """
    SELECT sequence, recovery_id, left_at, steps, score, adapter, fidelity FROM recoveries
    WHERE episode_id = $episode_id ORDER BY left_at, sequence LIMIT 50
"""
_ROW = """
    SELECT action, observation, messages FROM transitions
    WHERE episode_id = $episode_id AND sequence = $sequence AND origin IN ('production', 'branch')
"""

_RECOVERY = "SELECT steps AS recovery FROM recoveries WHERE episode_id = $episode_id AND sequence = $sequence"


class Taken(FrozenModel):
    """A step or a branch as the tree shows it. `label` says what it is besides its messages."""

    label: str
    action: Said
    observation: tuple[Said, ...]


class Node(FrozenModel):
    """A state of the episode: the step that was taken there, and what was tried instead."""

    step: int
    taken: Taken | None
    summary: StepSummary | None
    branches: tuple[Taken, ...]
    dropped: str


class Resumption(FrozenModel):
    """A success that begins in the failed episode, behind its first `left_at` steps."""

    left_at: int
    label: str
    messages: tuple[Said, ...]


class Tree(FrozenModel):
    """All that the page shows of an episode."""

    report: EpisodeReport
    nodes: tuple[Node, ...] = ()
    recoveries: tuple[Resumption, ...] = ()
    cut: bool = False


async def episode(request: Request, parts: Parts) -> Response:
    wanted = request.query_params.get("id", "")
    tree, reason = await within(request, _tree(parts.store, wanted))
    return page(
        request,
        parts,
        "episode.html",
        200 if tree is not None else 503,
        title=f"Episode {(tree.report.summary.episode_id if tree else wanted)[:60]}",
        tree=tree,
        reason=reason,
        wanted=wanted,
    )


async def text(request: Request, parts: Parts) -> Response:
    """The whole of what a step has: its action, what came back, or all that the actor was shown."""
    asked = request.query_params
    part, sequence = asked.get("part", ""), whole_number(asked.get("sequence", ""))
    if part not in _PARTS or sequence is None:
        raise RequestRefusedError(404, "not_found", "there is no such text")
    found, reason = await within(request, _texts(parts.store, asked.get("id", ""), sequence, part))
    if found is None:
        raise RequestRefusedError(503, "store", reason)
    number = whole_number(asked.get("message", ""))
    if number is not None:
        found = found[number : number + 1]
    if not found:
        raise RequestRefusedError(404, "not_found", "there is no such text")
    return whole("\n".join(f"{each.role}:\n{whole_message(each)}" for each in found))


async def _tree(store: StoreClient, wanted: str) -> Tree:
    report = await episode_report(store, await whole_id(store, wanted))
    if report.summary.state is EpisodeState.REVOKED:
        return Tree(report=report)
    name = report.summary.episode_id
    this: dict[str, Parameter] = {"episode_id": name}
    steps = (await store.query(_STEPS, {**this, "limit": MOST_STEPS})).to_pylist()
    branches = (await store.query(_BRANCHES, {**this, "limit": MOST_BRANCHES})).to_pylist()
    recoveries = (await store.query(_RECOVERIES, this)).to_pylist()
    tried: defaultdict[int, list[Taken]] = defaultdict(list)
    for row in branches:
        score = "" if row["score"] is None else f", score {row['score']:g}"
        tried[row["step"]].append(_taken(name, row, f"{row['source']}, {row['fidelity']}{score}"))
    summaries = {step.sequence: step for step in report.steps}
    dropped = {state.step: state.reason for state in report.branches if state.reason}
    nodes = [
        Node(
            step=row["step"],
            taken=_taken(name, row, ""),
            summary=summaries.get(row["sequence"]),
            branches=tuple(tried.pop(row["step"], ())),
            dropped=dropped.get(row["step"], ""),
        )
        for row in steps
    ]
    nodes += [
        Node(step=step, taken=None, summary=None, branches=tuple(others), dropped=dropped.get(step, ""))
        for step, others in sorted(tried.items())
    ]
    return Tree(
        report=report,
        nodes=tuple(nodes),
        recoveries=tuple(_recovery(name, row) for row in recoveries),
        cut=len(steps) == MOST_STEPS or len(branches) == MOST_BRANCHES,
    )


def _taken(episode_id: str, row: Mapping[str, Any], label: str) -> Taken:
    observation = MESSAGES.validate_json(row["observation"])
    return Taken(
        label=label,
        action=said(MESSAGE.validate_json(row["action"]), _address(episode_id, row, "action", 0)),
        observation=tuple(
            said(each, _address(episode_id, row, "observation", number)) for number, each in enumerate(observation)
        ),
    )


def _address(episode_id: str, row: Mapping[str, Any], part: str, number: int) -> str:
    return url("/pages/episode/text", id=episode_id, sequence=row["sequence"], part=part, message=number)


def _recovery(name: str, row: Mapping[str, Any]) -> Resumption:
    return Resumption(
        left_at=row["left_at"],
        label=f"by {row['adapter'] or 'the base model'}, {row['fidelity']}, score {row['score']:g}",
        messages=tuple(
            said(message, _address(name, row, "recovery", number))
            for number, message in enumerate(_messages(row["steps"]))
        ),
    )


def _messages(steps: str) -> Messages:
    """The actions of steps and what came back, one after the other."""
    return tuple(each for step in STEPS.validate_json(steps) for each in (step.action, *step.observation))


async def _texts(store: StoreClient, episode_id: str, sequence: int, part: str) -> tuple[Message, ...]:
    # What was revoked is told by nothing but the report, which knows of it.
    report = await episode_report(store, episode_id)
    if report.summary.state is EpisodeState.REVOKED:
        return ()
    sql = _RECOVERY if part == "recovery" else _ROW
    rows = (await store.query(sql, {"episode_id": episode_id, "sequence": sequence})).to_pylist()
    if not rows or rows[0][part] is None:
        return ()
    content = rows[0][part]
    if part == "recovery":
        return _messages(content)
    return (MESSAGE.validate_json(content),) if part == "action" else tuple(MESSAGES.validate_json(content))
