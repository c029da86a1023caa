"""`ratchet environment replay`: do the sandbox and production agree on what was recorded?"""

import asyncio
from collections import Counter
from itertools import groupby
from operator import itemgetter
from typing import Annotated

import typer
from rich.console import Console

from daemon.commands.options import ConfigOption, JsonOption, run_async
from daemon.config import Settings
from daemon.console import Narrator, plain, print_json
from ratchet_client.errors import RatchetError
from ratchet_client.settings import FrozenModel
from streams.branch_events import BranchRequest
from streams.branching.replay import Replayed, replay
from streams.errors import StoreError
from streams.redaction.key import redaction_key
from streams.redaction.redactor import Redactor
from streams.sandboxes.pool import sandbox_pool
from streams.store.client import StoreClient
from streams.store.export import look_back
from streams.store.queries.conversations import ENVIRONMENTS, NEWEST_EPISODES, OUTCOMES_OF_EPISODES, STEPS_OF_EPISODES
from streams.trust.rules import StoredStep, branch_request

_AT_ONCE = 20
_SHOWN = 10


class ReplayReport(FrozenModel):
    """The JSON of `ratchet environment replay --json`.

    `reproduced` of the `episodes` are exactly as they were recorded; the others say where they part. `left_out` counts
    those that are not one conversation, by the reason. `judged_otherwise` are reproduced, and the sandbox's verdict is
    not production's.
    """

    environment: str
    episodes: int
    reproduced: int
    judged_otherwise: tuple[str, ...]
    parted: tuple[Replayed, ...]
    left_out: dict[str, int]


def replay_episodes(
    environment: Annotated[
        str, typer.Option("--environment", help="Episodes of which environment; by default domain.environment.")
    ] = "",
    limit: Annotated[int, typer.Option(min=1, help="How many of the newest episodes.")] = 100,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Restore recorded episodes in the sandbox, as branching does, and say how many it reproduces exactly.

    For each of the others it says where it parts from the recording: the action, and a diff of what was recorded after
    it and what the sandbox shows. Ratchet must be running, for its store is asked.
    """
    settings = Settings.load(config)
    name = environment or settings.domain.environment
    if not name:
        raise typer.BadParameter("no domain is set: name an environment", param_hint="--environment")
    report = run_async(_replayed(settings, name, limit))
    if as_json:
        print_json(report.model_dump_json())
    else:
        _print(report)
    if not report.episodes:
        raise RatchetError(f"nothing was replayed: all episodes of {name!r} are left out: {report.left_out}")


async def _replayed(settings: Settings, name: str, limit: int) -> ReplayReport:
    redactor = Redactor(settings.redaction, await asyncio.to_thread(redaction_key, settings.store.path.parent))
    left_out: Counter[str] = Counter()
    done: list[Replayed] = []
    outcomes: dict[str, bool] = {}
    with Narrator() as narrator:
        async with (
            StoreClient(settings.store_url) as store,
            sandbox_pool(name, settings.branching, settings.branching.sandboxes) as pool,
        ):
            requests = await _requests(store, name, limit, left_out, outcomes)
            for number, request in enumerate(requests):
                narrator.advance("episodes", number, len(requests), request.task.task_id)
                done.append(await replay(request, pool, redactor))
            narrator.advance("episodes", len(requests), len(requests))
    exact = [each for each in done if each.exact]
    return ReplayReport(
        environment=name,
        episodes=len(done),
        reproduced=len(exact),
        judged_otherwise=tuple(
            each.episode_id for each in exact if outcomes.get(each.episode_id, each.success) != each.success
        ),
        parted=tuple(each for each in done if not each.exact),
        left_out=dict(left_out),
    )


async def _requests(
    store: StoreClient, name: str, limit: int, left_out: Counter[str], outcomes: dict[str, bool]
) -> list[BranchRequest]:
    """The newest episodes of the environment. Adds to `left_out` what cannot be restored, and to `outcomes`."""
    moment = await look_back(store, None, None)
    parameters = {"as_of": moment.as_of, "retracted_as_of": moment.retracted_as_of}
    episodes = (await store.query(NEWEST_EPISODES, {**parameters, "environment": name, "limit": limit})).to_pylist()
    if not episodes:
        known = [f"{row['environment']} ({row['episodes']})" for row in (await store.query(ENVIRONMENTS)).to_pylist()]
        raise StoreError(
            f"no episode of the environment {name!r} is recorded; there are those of: {', '.join(known) or 'none'}. "
            "Name one of these by --environment, or have the agent name this environment as its task's."
        )
    requests: list[BranchRequest] = []
    for start in range(0, len(episodes), _AT_ONCE):
        page = episodes[start : start + _AT_ONCE]
        names = [row["episode_id"] for row in page]
        place = {"first": min(row["first"] for row in page), "last": max(row["last"] for row in page)}
        rows = (await store.query(STEPS_OF_EPISODES, {"episode_ids": names, **place})).to_pylist()
        told = await store.query(OUTCOMES_OF_EPISODES, {"episode_ids": names, "as_of": moment.as_of})
        outcomes |= {row["episode_id"]: row["success"] for row in told.to_pylist()}
        for episode, steps in groupby(rows, key=itemgetter("episode_id")):
            request = branch_request(episode, [StoredStep.of(row) for row in steps], "trusted")
            if request is None:
                left_out["not an append-only conversation of one task and principal"] += 1
            else:
                requests.append(request)
    return requests


def _print(report: ReplayReport) -> None:
    console = Console()
    console.print(f"{report.reproduced} of {report.episodes} episodes of {report.environment} are reproduced exactly.")
    for reason, count in report.left_out.items():
        console.print(f"{count} left out: {plain(reason)}")
    if report.judged_otherwise:
        names = plain(", ".join(report.judged_otherwise[:_SHOWN]))
        console.print(f"{len(report.judged_otherwise)} of them are judged otherwise than in production: {names}")
    reasons = Counter(each.reason for each in report.parted if not each.diff)
    shown = list({each.reason: each for each in reversed(report.parted) if not each.diff}.values())[::-1]
    shown += [each for each in report.parted if each.diff]
    for action, count in Counter(_kind(each.action) for each in report.parted if each.action).most_common():
        console.print(f"{count} part after {plain(action)}", highlight=False)
    for each in shown[:_SHOWN]:
        console.print(
            f"\n[bold]{plain(each.episode_id)}[/bold], task {plain(each.task_id)}: parts {plain(_where(each))}"
        )
        if not each.diff:
            count = reasons[each.reason]
            console.print(plain(each.reason if count == 1 else f"{count} times: {each.reason}"), style="dim")
        for line in each.diff:
            colour = {"+": "green", "-": "red"}.get(line[:1], "")
            console.print(plain(line), style=colour or None, soft_wrap=True)
    if len(shown) > _SHOWN:
        console.print(f"\n… and {len(shown) - _SHOWN} more; --json has all")


def _kind(action: str) -> str:
    """The tool that an action calls first."""
    return "a text" if action.startswith(("'", '"')) else action.partition("(")[0]


def _where(parted: Replayed) -> str:
    if parted.parts_at is None:
        return "at once"
    if parted.parts_at == -1:
        return "at the start"
    return f"after action {parted.parts_at + 1} of {parted.steps}: {parted.action}"
