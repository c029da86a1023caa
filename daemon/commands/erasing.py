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
from daemon.erasure.log_records import LogErasure, erase_from_log
from daemon.erasure.request import ErasureReport, ErasureRequest, ask, report_of
from daemon.registry.erasing import in_use, last_unexposed
from daemon.registry.registry import Registry
from daemon.registry.schemas import RollbackRequest
from ratchet_client.errors import BrokerError
from streams.errors import ErasureError, StoreError
from streams.store.arrival import has_arrived
from streams.store.client import StoreClient
from streams.store.queries.retractions import TRAJECTORIES_OF
from streams.trust.groups import DEFAULT_GROUP, homes_in

_POLL_S = 0.5
_ARRIVAL_S = 60.0
# Workers commit seconds after the work.
_READ_S = 30.0


@dataclass(frozen=True, slots=True)
class Subject:
    """The principal, or the episodes, that are erased."""

    principal: str | None
    episodes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Erased:
    """What came of it in the home, and in the log; None where that is kept."""

    report: ErasureReport
    log: LogErasure | None


async def erase_from(
    settings: Settings,
    subject: Subject,
    reason: str,
    retire_champion: bool,
    keep_log: bool,
    wait_s: float,
    say: Callable[[str], None],
) -> Erased:
    """Have the record role erase `subject`, then delete it from the log, and return what came of it.

    Raises `ErasureError` where what serves saw the data and is not to be retired, or it is not done within `wait_s`.
    """
    async with StoreClient(settings.store_url) as store:
        say("waiting until the store has what the log holds")
        kafka = await find_kafka(settings)
        await has_arrived(kafka, store, _ARRIVAL_S)
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
        report = await _done(settings, request, store, wait_s)
        if keep_log:
            return Erased(report, None)
        say("deleting what everyone has read from the log")
        embedded = not settings.kafka.bootstrap
        try:
            log = await erase_from_log(kafka, embedded, settings.home, store, request.erasure_id, _READ_S)
        except BrokerError as error:
            raise ErasureError(
                f"store and home are erased, and the log is not: {error}; then ask for the same erasure again"
            ) from error
        return Erased(report, log)


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


def print_erased(erased: Erased) -> None:
    """Tell people what was erased, and where it still is."""
    report, erasure = erased.report, erased.report.erasure
    typer.echo(
        f"erased: {sum(erasure.rows.values())} rows of the store, {len(erasure.adapters)} adapters, "
        f"{len(erasure.paths) + erasure.others} folders and files of the home; the store was written again"
    )
    for adapter in report.in_use:
        typer.echo(f"adapter {adapter[:12]} came to serve meanwhile and was kept: ask again, with --retire-champion")
    if erased.log is not None:
        print_log(erased.log)
        return
    for kept in report.retained:
        typer.echo(
            f"{kept.topic}/{kept.partition} has {kept.records} records of it between offsets {kept.first} and "
            f"{kept.last}, until Kafka's retention removes them"
        )


def print_log(log: LogErasure) -> None:
    """Tell people what the log still holds."""
    left = [each for each in log.partitions if each.waits_for is not None]
    deleted = len(log.partitions) - len(left)
    typer.echo(f"deleted from the log: all records until {log.at:%Y-%m-%d %H:%M} UTC of {deleted} partitions")
    for each in left:
        typer.echo(f"{each.topic}/{each.partition} may hold records of it before offset {each.end}: {each.waits_for}")
    if log.embedded:
        typer.echo("what the embedded broker holds is gone once Ratchet is stopped")
    else:
        typer.echo(_deadline(log))
    typer.echo("agents' spools, open conversations and retries may bring more: ask again when they are through")


def _deadline(log: LogErasure) -> str:
    if log.gone_at is None:
        endless = sorted({each.topic for each in log.partitions if each.longest_ms is None})
        return (
            f"Kafka's own files may hold bytes of it without an end, since {', '.join(endless)} has no retention: "
            "see `ratchet doctor`"
        )
    return f"the last bytes leave Kafka's own files by {log.gone_at:%Y-%m-%d %H:%M} UTC"
