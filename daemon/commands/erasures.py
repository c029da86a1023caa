"""The part of `ratchet forget --status` that says of each erasure what the log still holds."""

from datetime import UTC, datetime

import typer

from daemon.commands.options import find_kafka, run_async
from daemon.config import Settings
from daemon.erasure.log_records import LeftInLog, LogErasure, log_erasures, readable
from ratchet_client.settings import FrozenModel
from streams.errors import ControlError
from streams.kafka.settings import KafkaSettings


class LogStatus(FrozenModel):
    """An erasure, and the partitions of which records that lay there then can still be read."""

    erasure: LogErasure
    readable: tuple[LeftInLog, ...]


def log_statuses(settings: Settings) -> list[LogStatus]:
    """The state of the log for each erasure. Raises `BrokerError` where the cluster does not answer."""
    erasures = log_erasures(settings.home)
    kafka = _kafka(settings) if erasures else None
    return [LogStatus(erasure=each, readable=tuple(readable(kafka, each) if kafka else ())) for each in erasures]


def _kafka(settings: Settings) -> KafkaSettings | None:
    try:
        return run_async(find_kafka(settings))
    except ControlError:
        return None  # an embedded broker that does not run holds nothing


def print_statuses(statuses: list[LogStatus]) -> None:
    """Tell people of each erasure what the log holds of it now."""
    if not statuses:
        typer.echo("nothing was erased from the log yet")
    for status in statuses:
        erasure = status.erasure
        typer.echo(f"erasure {erasure.erasure_id} of {erasure.at:%Y-%m-%d %H:%M} UTC: {_told(status)}")


def _told(status: LogStatus) -> str:
    erasure, left = status.erasure, status.readable
    if left:
        places = ", ".join(f"{each.topic}/{each.partition} before offset {each.end}" for each in left)
        return f"records of then can be read in {places}; ask for the same erasure again, or wait for their retention"
    if erasure.embedded:
        return "the embedded broker of then has ended, and its log with it"
    if erasure.gone_at is None:
        return "no record of then can be read; Kafka's own files have no end, see `ratchet doctor`"
    if datetime.now(UTC) > erasure.gone_at:
        return "nothing of it is left"
    by = f"{erasure.gone_at:%Y-%m-%d %H:%M} UTC"
    return f"no record of then can be read; the last bytes leave Kafka's own files by {by}"
