"""`ratchet transitions` and `ratchet export`: what the store held as of a sequence."""

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Annotated, BinaryIO

import pyarrow as pa
import typer
from rich.console import Console
from rich.table import Column, Table

from daemon.commands.options import ConfigOption, JsonOption, run_async
from daemon.config import Settings
from daemon.console import Narrator, plain, print_json
from daemon.printable import printable
from ratchet_client.messages import MESSAGE
from streams.errors import StoreError
from streams.exchange.exporting import ExportReport, Selection, export_conversations
from streams.exchange.formats import FormatName
from streams.runtime.files import replacing
from streams.store.client import StoreClient
from streams.store.export import Moment, Origin, export_transitions, look_back, newest
from streams.trust.holdout import Split

STANDARD_OUTPUT = Path("-")
_JSON_ENDINGS = frozenset({".json", ".jsonl", ".ndjson"})
_PARQUET_ENDINGS = frozenset({".parquet", ".pq"})
# Ids of one agent begin alike, with the time; so many characters at their end tell them apart.
_SHOWN_OF_ID = 12


class ExportFormat(StrEnum):
    """The formats of `ratchet export`."""

    PARQUET = "parquet"
    CHAT_JSONL = FormatName.CHAT_JSONL.value
    ATIF = FormatName.ATIF.value


AsOfOption = Annotated[int | None, typer.Option(min=0, help="A sequence of the store; the latest by default.")]
OriginOption = Annotated[Origin | None, typer.Option(help="Only what production did, or only what was tried instead.")]


def transitions(
    as_of: AsOfOption = None,
    origin: OriginOption = None,
    limit: Annotated[int, typer.Option(min=1, help="How many of the newest.")] = 20,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """List the newest transitions as of a sequence. The same sequence gives the same, but for revoked consent.

    The table has the ends of the episodes' ids; --json has them in full.
    """
    moment, rows = run_async(_newest(Settings.load(config), as_of, origin, limit))
    if as_json:
        print_json(json.dumps(rows.to_pylist()))
    else:
        Console().print(_table(rows, moment))
    _tell_revoked(moment)


def export(
    to: Annotated[Path, typer.Option(help="The file to write; one that is there is replaced. - is stdout.")],
    file_format: Annotated[
        ExportFormat, typer.Option("--format", help="Parquet has transitions, the others have conversations.")
    ] = ExportFormat.PARQUET,
    as_of: AsOfOption = None,
    origin: OriginOption = None,
    every: Annotated[bool, typer.Option("--all", help="Conversations that are not trusted, too.")] = False,
    split: Annotated[Split | None, typer.Option(help="Only conversations of tasks on one side of the holdout.")] = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write what the store held as of a sequence: transitions as Parquet, trusted episodes as conversations.

    To train on an export and evaluate here, take --split train: the other tasks are held out of training.
    """
    name = _format_of_conversations(file_format, to, origin, every=every, split=split, as_json=as_json)
    if name is not None:
        selection = Selection(trusted=not every, split=split)
        report = run_async(_export_conversations(Settings.load(config), as_of, selection, name, to))
        _tell_conversations(report, to, as_json=as_json)
        return
    moment, written = run_async(_export(Settings.load(config), as_of, origin, to.absolute()))
    if as_json:
        print_json(json.dumps({"as_of": moment.as_of, "rows": written, "withdrawn": moment.revoked, "to": str(to)}))
    else:
        typer.echo(f"{written} transitions as of sequence {moment.as_of} are in {to}")
    _tell_revoked(moment)


def _format_of_conversations(
    file_format: ExportFormat, to: Path, origin: Origin | None, *, every: bool, split: Split | None, as_json: bool
) -> FormatName | None:
    """The format, None for Parquet. Options that do not go together are wrong usage."""
    if to != STANDARD_OUTPUT and not to.absolute().parent.is_dir():
        raise typer.BadParameter(f"folder not found: {to.absolute().parent}", param_hint="--to")
    contradicted = _JSON_ENDINGS if file_format is ExportFormat.PARQUET else _PARQUET_ENDINGS
    if contradicted.intersection(ending.lower() for ending in to.suffixes):
        better = "--format chat-jsonl or atif" if file_format is ExportFormat.PARQUET else "--format parquet"
        raise typer.BadParameter(
            f"the format {file_format.value} contradicts the name {to.name}: use {better}, or name the file otherwise",
            param_hint="--to",
        )
    if file_format is ExportFormat.PARQUET:
        if to == STANDARD_OUTPUT:
            raise typer.BadParameter("a Parquet file is not written to stdout: name a file", param_hint="--to")
        if every or split is not None:
            raise typer.BadParameter("--all and --split choose conversations: add --format chat-jsonl or atif")
        return None
    if to == STANDARD_OUTPUT and as_json:
        raise typer.BadParameter("stdout has the conversations: name a file, or leave out --json", param_hint="--json")
    if origin is Origin.BRANCH:
        raise typer.BadParameter("branches are no conversations: --format parquet has them", param_hint="--origin")
    return FormatName(file_format.value)


async def _newest(settings: Settings, as_of: int | None, origin: Origin | None, limit: int) -> tuple[Moment, pa.Table]:
    async with StoreClient(settings.store_url) as store:
        moment = await look_back(store, as_of, origin)
        return moment, await newest(store, moment, limit)


async def _export(settings: Settings, as_of: int | None, origin: Origin | None, to: Path) -> tuple[Moment, int]:
    async with StoreClient(settings.store_url) as store:
        moment = await look_back(store, as_of, origin)
        with Narrator() as narrator:
            return moment, await export_transitions(
                store, moment, to, lambda done, total: narrator.advance("transitions", done, total)
            )


async def _export_conversations(
    settings: Settings, as_of: int | None, selection: Selection, name: FormatName, to: Path
) -> ExportReport:
    async with StoreClient(settings.store_url) as store:
        moment = await look_back(store, as_of, Origin.PRODUCTION)
        try:
            with Narrator() as narrator, _opened(to) as file:
                return await export_conversations(
                    store, moment, selection, name, file, lambda done, total: narrator.advance("episodes", done, total)
                )
        except OSError as error:
            raise StoreError(f"the export {to} could not be written: {error}") from error


@contextmanager
def _opened(to: Path) -> Iterator[BinaryIO]:
    if to != STANDARD_OUTPUT:
        with replacing(to.absolute()) as file:
            yield file
        return
    try:
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
    except BrokenPipeError:
        # At its end Python would try to write the rest once more.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise


def _tell_conversations(report: ExportReport, to: Path, *, as_json: bool) -> None:
    if as_json:
        print_json(json.dumps({**report.model_dump(), "to": str(to)}))
    else:
        where = "written" if to == STANDARD_OUTPUT else f"in {to}"
        typer.echo(f"{report.conversations} conversations as of sequence {report.as_of} are {where}", err=True)
    for reason, count in report.left_out.items():
        typer.echo(printable(f"left out: {count} episodes: {reason}"), err=True)
    if report.withdrawn:
        typer.echo(f"left out: {report.withdrawn} episodes of principals that revoked consent", err=True)


def _table(rows: pa.Table, moment: Moment) -> Table:
    episode = Column("episode", no_wrap=True)
    table = Table(
        *("sequence", "origin", episode, "step", "by", "action", "task"),
        title=f"{rows.num_rows} of {moment.rows} transitions as of sequence {moment.as_of}",
    )
    for row in rows.to_pylist():
        by = row["source"] if row["origin"] == Origin.BRANCH else row["actor_kind"]
        action = _readable(row["action"])
        cells = (row["sequence"], row["origin"], _end_of(row["episode_id"]), row["step"], by, action, row["task_id"])
        table.add_row(*(plain(str(cell)) for cell in cells))
    return table


def _end_of(episode_id: str) -> str:
    return episode_id if len(episode_id) <= _SHOWN_OF_ID + 1 else f"…{episode_id[-_SHOWN_OF_ID:]}"


def _readable(action: str) -> str:
    """A message as a person reads it: its text, and each tool call as name(arguments)."""
    message = MESSAGE.validate_json(action)
    calls = [f"{call.function.name}({call.function.arguments})" for call in message.calls if call.function is not None]
    return " ".join(part for part in (message.text, *calls) if part)


def _tell_revoked(moment: Moment) -> None:
    if moment.revoked:
        typer.echo(f"left out: {moment.revoked} transitions of principals that revoked consent", err=True)
