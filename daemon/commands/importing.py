"""`ratchet import`: conversations in files become episodes."""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Annotated, Literal

import typer

from daemon.commands.options import ConfigOption, JsonOption, find_kafka, run_async
from daemon.config import Settings
from daemon.console import Narrator, print_json
from daemon.printable import printable
from ratchet_client.errors import ConfigurationError
from ratchet_client.events import Event
from streams.errors import ExchangeError, UnnamedError
from streams.exchange.episodes import Attribution, Told
from streams.exchange.formats import FormatName
from streams.exchange.importing import Import, ImportReport, publishing
from streams.intake.admission import Admission

_KIB = 2**10
_STANDARD_INPUT = Path("-")


def import_files(
    files: Annotated[list[Path], typer.Argument(help="Files of conversations; - is stdin.")],
    file_format: Annotated[FormatName, typer.Option("--format", help="The format of the files.")],
    principal: Annotated[str, typer.Option(help="Whose data it is.")],
    environment: Annotated[str | None, typer.Option(help="Of the tasks; else what the files say.")] = None,
    agent: Annotated[str | None, typer.Option(help="Who acted; else what the files say.")] = None,
    actor: Annotated[Literal["policy", "expert", "human"], typer.Option(help="What kind of actor that is.")] = "expert",
    success: Annotated[bool, typer.Option("--success", help="All conversations succeeded.")] = False,
    failed: Annotated[bool, typer.Option("--failed", help="All conversations failed.")] = False,
    outcome_field: Annotated[
        str | None, typer.Option(help="The field that says whether one succeeded, as a.b.c: true, false or a number.")
    ] = None,
    success_at: Annotated[float, typer.Option(help="The least number that is a success.")] = 1.0,
    verifier: Annotated[str, typer.Option(help="The name of who says so.")] = "import",
    task_field: Annotated[str | None, typer.Option(help="The field with the id of the task, as a.b.c.")] = None,
    skip_invalid: Annotated[
        bool, typer.Option("--skip-invalid", help="Count and name what cannot be read, and go on.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Read everything, and publish nothing.")] = False,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Publish conversations from files as episodes. The same file may be imported again: nothing is stored twice.

    Only episodes with an outcome are learned from: --success, --failed or --outcome-field tells it, or the file itself.
    """
    if sum((success, failed, outcome_field is not None)) > 1:
        raise typer.BadParameter("tell the outcome once: by --success, --failed or --outcome-field")
    if not principal:
        raise typer.BadParameter("name whose data it is", param_hint="--principal")
    for path in files:
        if path != _STANDARD_INPUT and (path.is_dir() or not path.exists()):
            raise typer.BadParameter(f"file not found: {path}", param_hint="FILES")
    settings = Settings.load(config)
    told = Told(True if success else False if failed else None, outcome_field, success_at)
    attribution = Attribution(principal, environment, agent, actor, task_field, verifier, told)
    with publishing_as(settings, principal, dry_run=dry_run) as publish:
        work = Import(file_format, attribution, Admission(settings.admission), publish, skip_invalid)
        try:
            _take(work, files)
        except KeyboardInterrupt:
            read = work.report().conversations
            typer.echo(f"interrupted after {read} conversations: import again, and nothing is stored twice", err=True)
            raise
    _tell(work.report(), as_json=as_json, dry_run=dry_run)


def _take(work: Import, files: Sequence[Path]) -> None:
    with Narrator() as narrator:
        for path in files:
            name = "stdin" if path == _STANDARD_INPUT else path.name
            try:
                with nullcontext(sys.stdin.buffer) if path == _STANDARD_INPUT else path.open("rb") as file:
                    work.take(name, file, _watch(narrator, name, _size(path)))
            except UnnamedError as error:
                raise typer.BadParameter(
                    f"the conversations of {name} do not say it: name the {error.missing}",
                    param_hint=f"--{error.missing}",
                ) from error
            except OSError as error:
                raise ExchangeError(f"the file {path} cannot be read: {error.strerror}") from error


def _watch(narrator: Narrator, name: str, size: int | None) -> Callable[[int, int], None]:
    def watch(read: int, conversations: int) -> None:
        total = None if size is None else -(-size // _KIB)
        narrator.advance(f"KiB of {name}", -(-read // _KIB), total, f"{conversations} conversations")

    return watch


def _size(path: Path) -> int | None:
    """Return how many bytes the file has; None where that is not known."""
    return path.stat().st_size if path != _STANDARD_INPUT and path.is_file() else None


@contextmanager
def publishing_as(settings: Settings, principal: str, *, dry_run: bool) -> Iterator[Callable[[Sequence[Event]], None]]:
    """Publishes events of a principal, with its key where events must be signed; with `dry_run` nothing.

    Raises `ConfigurationError` where it has none.
    """
    if dry_run:
        yield lambda events: None
        return
    secret = settings.admission.principals.get(principal)
    if secret is None and settings.admission.authenticates:
        raise ConfigurationError(
            f"the principal {principal!r} has no key, and events must be signed: add one to admission.principals"
        )
    key = None if secret is None else secret.get_secret_value().encode()
    with publishing(run_async(find_kafka(settings)), key) as publish:
        yield publish


def _tell(report: ImportReport, *, as_json: bool, dry_run: bool) -> None:
    for one in report.errors:
        typer.echo(printable(f"skipped: {one.file}, {one.place}: {one.error}"), err=True)
    for warning, count in report.warnings.items():
        typer.echo(printable(f"warning: {count} conversations: {warning}"), err=True)
    for name, count in report.left_out.items():
        typer.echo(printable(f"left out: the field {name} of {count} conversations"), err=True)
    if as_json:
        print_json(report.model_dump_json())
        return
    done = "would be published" if dry_run else "were published"
    typer.echo(
        f"{report.conversations} conversations {done} as episodes of {report.steps} steps: {report.successes} "
        f"successes, {report.failures} failures"
    )
    if not dry_run:
        typer.echo("what was imported before is stored once: `ratchet status --json` counts it under duplicates")
    if report.repeated:
        typer.echo(f"{report.repeated} of them repeat an earlier one, and are the same episode")
    if report.flagged:
        typer.echo(f"{report.flagged} of them are stored and not learned from: their file forbids it for an action")
    if report.skipped:
        typer.echo(f"{report.skipped} documents could not be read and were skipped")
    if report.without_outcome:
        typer.echo(
            f"{report.without_outcome} have no outcome, so they are not trusted: see --success, --failed and "
            "--outcome-field"
        )
