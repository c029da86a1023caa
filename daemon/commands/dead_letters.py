"""`ratchet dead-letters list | replay`: what was refused, and how it gets another chance."""

import json
from typing import Annotated, Literal

import typer
from pydantic import AwareDatetime
from rich.console import Console
from rich.table import Table

from daemon.commands.options import ConfigOption, JsonOption, find_kafka, run_async
from daemon.config import Settings
from daemon.console import Narrator, plain, print_json
from ratchet_client.errors import RatchetError
from ratchet_client.settings import FrozenModel
from streams.kafka.dead_letters import DeadLetter, Position, originals, read_dead_letters, replay
from streams.kafka.settings import KafkaSettings

dead_letters = typer.Typer(name="dead-letters", no_args_is_help=True, help="What was refused, and what to do with it.")

Verdict = Literal["dead-letter", "quarantine"]


class RefusedRecord(FrozenModel):
    """A dead-letter record as `--json` prints it.

    `content` only if asked for; bytes that are not text are escaped.
    """

    position: str
    verdict: str
    error: str
    key: str | None
    size: int
    at: AwareDatetime
    replayed: bool
    replay_of: str | None
    content: str | None = None

    @classmethod
    def of(cls, dead_letter: DeadLetter, content: str | None = None) -> "RefusedRecord":
        return cls(
            position=str(dead_letter.position),
            verdict=dead_letter.verdict,
            error=dead_letter.error,
            key=None if dead_letter.key is None else _text(dead_letter.key),
            size=dead_letter.size,
            at=dead_letter.at,
            replayed=dead_letter.replayed,
            replay_of=None if dead_letter.replay_of is None else str(dead_letter.replay_of),
            content=content,
        )


@dead_letters.command("list")
def list_letters(
    verdict: Annotated[Verdict | None, typer.Option(help="Only what could not be read, or was not let in.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="How many of the newest.")] = 50,
    show: Annotated[bool, typer.Option("--show", help="Print the records too; nothing in them is redacted.")] = False,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """List the records that were refused: where, why, how large; the newest last. Each was counted and none is lost."""
    kafka = run_async(find_kafka(Settings.load(config)))
    dead_letters = [dead_letter for dead_letter in _read(kafka) if verdict in (None, dead_letter.verdict)]
    newest = dead_letters[-limit:]
    records = originals(kafka, newest if show else [])
    contents = {dead_letter.position: _text(record.value or b"") for dead_letter, record in records}
    shown = [RefusedRecord.of(dead_letter, contents.get(dead_letter.position)) for dead_letter in newest]
    if as_json:
        print_json("[" + ",".join(dead_letter.model_dump_json(exclude_none=True) for dead_letter in shown) + "]")
    else:
        Console().print(_table(shown, len(dead_letters)))


@dead_letters.command("replay")
def replay_letters(
    position: Annotated[list[str] | None, typer.Option(help="TOPIC/PARTITION/OFFSET, as the list has it.")] = None,
    every: Annotated[bool, typer.Option("--all", help="All that were not replayed yet.")] = False,
    error: Annotated[str | None, typer.Option(help="All not replayed yet whose error has this text.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be replayed, and do nothing.")] = False,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Publish refused records again, as they came, to the topic they came from.

    For when the reason is gone: a key is configured, a rule was mended. What is refused again is another dead-letter
    record.
    """
    if sum((bool(position), every, error is not None)) != 1:
        raise typer.BadParameter("say which dead-letter records: one of --position, --all and --error")
    wanted = _positions(position or [])
    kafka = run_async(find_kafka(Settings.load(config)))
    chosen = _choose(_read(kafka), wanted, error or "")
    replayed = 0
    if chosen and not dry_run:
        with Narrator() as narrator:
            replayed = replay(kafka, chosen, lambda done, total: narrator.advance("replayed", done, total))
    if as_json:
        positions = [str(dead_letter.position) for dead_letter in chosen]
        print_json(json.dumps({"chosen": positions, "replayed": replayed, "dry_run": dry_run}))
    elif dry_run:
        Console().print(_table([RefusedRecord.of(dead_letter) for dead_letter in chosen], len(chosen)))
        typer.echo(f"{len(chosen)} records would be replayed")
    else:
        typer.echo(f"{replayed} records were published again; what is refused again comes back as a dead-letter record")


def _read(kafka: KafkaSettings) -> list[DeadLetter]:
    with Narrator() as narrator:
        return read_dead_letters(kafka, lambda done, total: narrator.advance("dead-letter records read", done, total))


def _positions(texts: list[str]) -> list[Position]:
    try:
        return [Position.parse(text) for text in texts]
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--position") from error


def _choose(dead_letters: list[DeadLetter], wanted: list[Position], error: str) -> list[DeadLetter]:
    """The dead-letter records at the positions, replayed before or not; without any, those that wait with the text."""
    if not wanted:
        return [dead_letter for dead_letter in dead_letters if not dead_letter.replayed and error in dead_letter.error]
    known = {dead_letter.position: dead_letter for dead_letter in dead_letters}
    missing = [position for position in wanted if position not in known]
    if missing:
        raise RatchetError(f"dead-letter record not found at {missing[0]}: see `ratchet dead-letters list`")
    return [known[position] for position in dict.fromkeys(wanted)]


def _table(dead_letters: list[RefusedRecord], of: int) -> Table:
    table = Table(
        *("refused at", "position", "verdict", "error", "key", "bytes", "replayed"),
        title=f"{len(dead_letters)} of {of} dead-letter records",
    )
    for dead_letter in dead_letters:
        replayed = "yes" if dead_letter.replayed else "it is one" if dead_letter.replay_of else ""
        cells = (
            dead_letter.position,
            dead_letter.verdict,
            dead_letter.error,
            dead_letter.key or "",
            str(dead_letter.size),
            replayed,
        )
        table.add_row(f"{dead_letter.at:%Y-%m-%d %H:%M:%S}", *(plain(cell) for cell in cells))
        if dead_letter.content is not None:
            table.add_row("", "", "", plain(dead_letter.content), "", "", "")
    return table


def _text(data: bytes) -> str:
    return data.decode(errors="backslashreplace")
