"""`ratchet transitions` and `ratchet export`: what the store held as of a sequence."""

import json
from pathlib import Path
from typing import Annotated

import pyarrow as pa
import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from daemon.commands.options import ConfigOption, JsonOption, run_async
from daemon.config import Settings
from daemon.console import Narrator, print_json
from streams.messages import MESSAGE
from streams.store.client import StoreClient
from streams.store.export import Moment, Origin, export_transitions, look_back, newest

AsOfOption = Annotated[int | None, typer.Option(min=0, help="A sequence of the store; the latest by default.")]
OriginOption = Annotated[Origin | None, typer.Option(help="Only what production did, or only what was tried instead.")]


def transitions(
    as_of: AsOfOption = None,
    origin: OriginOption = None,
    limit: Annotated[int, typer.Option(min=1, help="How many of the newest.")] = 20,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """List the newest transitions as of a sequence. The same sequence gives the same, but for revoked consent."""
    moment, rows = run_async(_newest(Settings.load(config), as_of, origin, limit))
    if as_json:
        print_json(json.dumps(rows.to_pylist()))
    else:
        Console().print(_table(rows, moment))
    _tell_revoked(moment)


def export(
    to: Annotated[Path, typer.Option(help="The Parquet file to write; one that is there is replaced.")],
    as_of: AsOfOption = None,
    origin: OriginOption = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write the transitions as of a sequence into a Parquet file."""
    if not to.absolute().parent.is_dir():
        raise typer.BadParameter(f"folder not found: {to.absolute().parent}", param_hint="--to")
    moment, written = run_async(_export(Settings.load(config), as_of, origin, to.absolute()))
    if as_json:
        print_json(json.dumps({"as_of": moment.as_of, "rows": written, "withdrawn": moment.revoked, "to": str(to)}))
    else:
        typer.echo(f"{written} transitions as of sequence {moment.as_of} are in {to}")
    _tell_revoked(moment)


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


def _table(rows: pa.Table, moment: Moment) -> Table:
    table = Table(
        *("sequence", "origin", "episode", "step", "by", "action", "task"),
        title=f"{rows.num_rows} of {moment.rows} transitions as of sequence {moment.as_of}",
    )
    for row in rows.to_pylist():
        by = row["source"] if row["origin"] == Origin.BRANCH else row["actor_kind"]
        cells = (
            row["sequence"],
            row["origin"],
            row["episode_id"],
            row["step"],
            by,
            _said(row["action"]),
            row["task_id"],
        )
        table.add_row(*(escape(str(cell)) for cell in cells))
    return table


def _said(action: str) -> str:
    message = MESSAGE.validate_json(action)
    calls = (call.function for call in message.calls if call.function is not None)
    return "\n".join(filter(None, (message.text, *(f"{call.name}({call.arguments})" for call in calls))))


def _tell_revoked(moment: Moment) -> None:
    if moment.revoked:
        typer.echo(f"left out: {moment.revoked} transitions of principals that revoked consent", err=True)
