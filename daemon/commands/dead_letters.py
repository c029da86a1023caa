"""`ratchet dead-letters list | replay`: what was refused, and how it gets another chance."""

import json
from typing import Annotated, Literal

import typer
from pydantic import AwareDatetime
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from daemon.commands.options import ConfigOption, JsonOption, find_kafka, run_async
from daemon.config import Settings
from daemon.console import Narrator, print_json
from streams.errors import RatchetError
from streams.kafka.dead_letters import DeadLetter, Position, originals, read_letters, replay
from streams.kafka.settings import KafkaSettings
from streams.settings import FrozenModel

dead_letters = typer.Typer(name="dead-letters", no_args_is_help=True, help="What was refused, and what to do with it.")

Verdict = Literal["dead-letter", "quarantine"]


class Letter(FrozenModel):
    """A dead letter as `--json` prints it. `content` only if asked for; bytes that are no text are escaped."""

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
    def of(cls, letter: DeadLetter, content: str | None = None) -> "Letter":
        return cls(
            position=str(letter.position),
            verdict=letter.verdict,
            error=letter.error,
            key=None if letter.key is None else _text(letter.key),
            size=letter.size,
            at=letter.at,
            replayed=letter.replayed,
            replay_of=None if letter.replay_of is None else str(letter.replay_of),
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
    letters = [letter for letter in _read(kafka) if verdict in (None, letter.verdict)]
    newest = letters[-limit:]
    records = originals(kafka, newest if show else [])
    contents = {letter.position: _text(record.value or b"") for letter, record in records}
    shown = [Letter.of(letter, contents.get(letter.position)) for letter in newest]
    if as_json:
        print_json("[" + ",".join(letter.model_dump_json(exclude_none=True) for letter in shown) + "]")
    else:
        Console().print(_table(shown, len(letters)))


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

    For when the reason is gone: a key is configured, a rule was mended. What is refused again is another dead letter.
    """
    if sum((bool(position), every, error is not None)) != 1:
        raise typer.BadParameter("say which letters: one of --position, --all and --error")
    wanted = _positions(position or [])
    kafka = run_async(find_kafka(Settings.load(config)))
    chosen = _choose(_read(kafka), wanted, error or "")
    replayed = 0
    if chosen and not dry_run:
        with Narrator() as narrator:
            replayed = replay(kafka, chosen, lambda done, total: narrator.advance("replayed", done, total))
    if as_json:
        positions = [str(letter.position) for letter in chosen]
        print_json(json.dumps({"chosen": positions, "replayed": replayed, "dry_run": dry_run}))
    elif dry_run:
        Console().print(_table([Letter.of(letter) for letter in chosen], len(chosen)))
        typer.echo(f"{len(chosen)} records would be replayed")
    else:
        typer.echo(f"{replayed} records were published again; what is refused again comes back as a dead letter")


def _read(kafka: KafkaSettings) -> list[DeadLetter]:
    with Narrator() as narrator:
        return read_letters(kafka, lambda done, total: narrator.advance("dead letters read", done, total))


def _positions(texts: list[str]) -> list[Position]:
    try:
        return [Position.parse(text) for text in texts]
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--position") from error


def _choose(letters: list[DeadLetter], wanted: list[Position], error: str) -> list[DeadLetter]:
    """The letters at the positions, replayed before or not; without any, those that wait and have the text."""
    if not wanted:
        return [letter for letter in letters if not letter.replayed and error in letter.error]
    known = {letter.position: letter for letter in letters}
    missing = [position for position in wanted if position not in known]
    if missing:
        raise RatchetError(f"there is no dead letter of {missing[0]}: see `ratchet dead-letters list`")
    return [known[position] for position in dict.fromkeys(wanted)]


def _table(letters: list[Letter], of: int) -> Table:
    table = Table(
        *("refused at", "position", "verdict", "error", "key", "bytes", "replayed"),
        title=f"{len(letters)} of {of} dead letters",
    )
    for letter in letters:
        replayed = "yes" if letter.replayed else "it is one" if letter.replay_of else ""
        cells = (letter.position, letter.verdict, letter.error, letter.key or "", str(letter.size), replayed)
        table.add_row(f"{letter.at:%Y-%m-%d %H:%M:%S}", *(escape(cell) for cell in cells))
        if letter.content is not None:
            table.add_row("", "", "", escape(letter.content), "", "", "")
    return table


def _text(data: bytes) -> str:
    return data.decode(errors="backslashreplace")
