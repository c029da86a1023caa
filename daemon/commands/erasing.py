"""The part of `ratchet forget --erase` that asks the record role for an erasure, and waits for it."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import typer

from daemon.commands.options import control_of, find_kafka, operator_name
from daemon.config import Settings
from daemon.erasure.carrying_out import exposed_adapters
from daemon.erasure.request import ErasureReport, ErasureRequest, ask, report_of
from daemon.registry.erasing import in_use, last_unexposed
from daemon.registry.registry import Registry
from daemon.registry.schemas import RollbackRequest
from streams.errors import ErasureError, StoreError
from streams.store.arrival import has_arrived
from streams.store.client import StoreClient
from streams.store.queries.retractions import TRAJECTORIES_OF
from streams.trust.groups import DEFAULT_GROUP, homes_in

_POLL_S = 0.5
_ARRIVAL_S = 60.0


@dataclass(frozen=True, slots=True)
class Subject:
    """The principal, or the episodes, that are erased."""

    principal: str | None
    episodes: tuple[str, ...]


async def erase_from(
    settings: Settings, subject: Subject, reason: str, retire_champion: bool, wait_s: float, say: Callable[[str], None]
) -> ErasureReport:
    """Have the record role erase `subject`, and return what came of it.

    Raises `ErasureError` where what serves saw the data and is not to be retired, or it is not done within `wait_s`.
    """
    async with StoreClient(settings.store_url) as store:
        say("waiting until the store has what the log holds")
        await has_arrived(await find_kafka(settings), store, _ARRIVAL_S)
        asked = {"principal": subject.principal or "", "episodes": list(subject.episodes)}
        found = await store.query(TRAJECTORIES_OF, asked)
        trajectories = tuple(found["trajectory"].to_pylist())
        for home in homes_in(settings.home):
            registry = Registry(home)
            exposed = await asyncio.to_thread(exposed_adapters, home, subject.principal, trajectories)
            while serving := in_use(registry, exposed):
                if not retire_champion:
                    raise ErasureError(
                        f"nothing is erased yet: adapter {serving[0][:12]} serves and saw the data. Say "
                        f"--retire-champion to roll back to {last_unexposed(registry, exposed)[:12]}, which did not"
                    )
                say(f"rolling back {serving[0][:12]}")
                await _roll_back(settings, home, serving, last_unexposed(registry, exposed), reason)
        request = ErasureRequest(principal=subject.principal, episodes=subject.episodes, actor=operator_name())
        ask(settings.home, request)
        say("the record role starts again, and erases first")
        return await _done(settings, request, store, wait_s)


async def _roll_back(settings: Settings, home: Path, serving: tuple[str, ...], to: str, reason: str) -> None:
    """Roll the champion back to `to`, or else end the canary of one of `serving`; both may serve.

    Raises `ConfigurationError` where `home` is that of a group that is not set any more: nothing serves it.
    """
    is_champion = Registry(home).refs().champion in serving
    group = DEFAULT_GROUP if home == settings.home else home.name
    async with control_of(settings, group) as control:
        request = RollbackRequest(to=to if is_champion else None, reason=reason, actor=operator_name())
        await control.rollback(request)


async def _done(settings: Settings, request: ErasureRequest, store: StoreClient, wait_s: float) -> ErasureReport:
    deadline = time.monotonic() + wait_s
    while True:
        report = report_of(settings.home, request.erasure_id)
        if report is not None and await _answers(store):
            return report
        if time.monotonic() > deadline:
            raise ErasureError(
                f"the erasure {request.erasure_id} is asked for, and not done within {wait_s:g} s: the record role "
                f"does it when it starts, with the home {settings.home}. Start it, and look at its log"
            )
        await asyncio.sleep(_POLL_S)


async def _answers(store: StoreClient) -> bool:
    try:
        await store.status()
    except StoreError:
        return False
    return True


def print_erased(report: ErasureReport) -> None:
    """Tell people what was erased, and where it still is."""
    erasure = report.erasure
    typer.echo(
        f"erased: {sum(erasure.rows.values())} rows of the store, {len(erasure.adapters)} adapters, "
        f"{len(erasure.paths) + erasure.others} folders and files of the home; the store was written again"
    )
    for adapter in report.in_use:
        typer.echo(f"adapter {adapter[:12]} came to serve meanwhile and was kept: ask again, with --retire-champion")
    for kept in report.retained:
        typer.echo(
            f"{kept.topic}/{kept.partition} has {kept.records} records of it between offsets {kept.first} and "
            f"{kept.last}, until Kafka's retention removes them"
        )
