"""`ratchet gate show`: what the gates said of an adapter, and the tasks that were played, to be read by a person."""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from daemon.commands.gate_measures import aa, stats, tenant
from daemon.commands.options import ConfigOption, GroupOption, JsonOption
from daemon.config import Settings
from daemon.console import plain, print_json
from daemon.learning.why import find
from daemon.printable import printable
from daemon.registry.lifecycle import State
from daemon.registry.registry import Registry
from daemon.registry.schemas import BASE, Digest
from evaluation.gates.verdict import GateResult, Verdict
from evaluation.matches import Match, Result, matches
from evaluation.report import GateReport
from evaluation.rollout_log import Entry, newest_rollouts, read_rollouts
from learners.adapters import AdapterStore
from ratchet_client.messages import Message, same_message
from ratchet_client.settings import FrozenModel
from streams.errors import GateError

gate = typer.Typer(name="gate", no_args_is_help=True, help="Trials of candidates: what was played, and the verdicts.")
for measure in (aa, stats, tenant):
    gate.command()(measure)


class ShownGate(FrozenModel):
    """The JSON of `ratchet gate show --json`.

    `verdict` is None while the trial is not over. `results` counts, for each gate, the tasks by their result; `tasks`
    are those that were asked for, with their conversations.
    """

    adapter: Digest
    state: State | None
    verdict: Verdict | None
    reason: str
    gates: tuple[GateResult, ...]
    results: dict[str, dict[Result, int]]
    tasks: tuple[Match, ...]


@gate.command("show")
def show_gate(
    adapter: Annotated[str, typer.Argument(help="A digest, its beginning, a served name, or `champion`.")],
    losses: Annotated[bool, typer.Option("--losses", help="Show the tasks that only the other side solved.")] = False,
    wins: Annotated[bool, typer.Option("--wins", help="Show the tasks that only this adapter solved.")] = False,
    task: Annotated[str | None, typer.Option(help="Show the task of this id, or those whose ids begin so.")] = None,
    group: GroupOption = "",
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show what each gate said of an adapter, and how both sides played single tasks. Works offline."""
    home = Settings.load(config).of_group(group).home
    registry = Registry(home)
    digest = find(adapter, registry, AdapterStore(home / "adapters"))
    found = tuple(matches(read_rollouts(newest_rollouts(home, digest)), digest))
    wanted = {*([Result.LOSS] if losses else []), *([Result.WIN] if wins else [])}
    chosen = tuple(
        match for match in found if match.result in wanted or (task is not None and match.task.task_id.startswith(task))
    )
    if task is not None and not any(match.task.task_id.startswith(task) for match in chosen):
        raise GateError(f"no task {task!r} was played in the trial of {digest[:12]}: `--json` counts what was")
    shown = _shown(registry, digest, found, chosen)
    if as_json:
        print_json(shown.model_dump_json())
        return
    console = Console()
    console.print(_summary(shown, found))
    for match in chosen:
        for line in _match_lines(match):
            console.print(line, soft_wrap=True)


def gate_summary(registry: Registry, digest: str) -> Table:
    """What each gate said of an adapter, and how many tasks either side solved."""
    found = tuple(matches(read_rollouts(newest_rollouts(registry.home, digest)), digest))
    return _summary(_shown(registry, digest, found, ()), found)


def _shown(registry: Registry, digest: str, found: Sequence[Match], chosen: tuple[Match, ...]) -> ShownGate:
    report = GateReport.read(registry.adapter_folder(digest))
    return ShownGate(
        adapter=digest,
        state=registry.state(digest),
        verdict=report.verdict if report else None,
        reason=report.reason if report else "the trial is not over, or was never begun",
        gates=report.gates if report else (),
        results={name: Counter(match.result for match in found if match.gate == name) for name in _gates(found)},
        tasks=chosen,
    )


def _gates(found: Sequence[Match]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(match.gate for match in found))


def _summary(shown: ShownGate, found: Sequence[Match]) -> Table:
    table = Table(title=shown.adapter, show_header=False)
    table.add_row("state", shown.state or "never judged")
    table.add_row("verdict", f"{shown.verdict.value}: {plain(shown.reason)}" if shown.verdict else shown.reason)
    for said in shown.gates:
        table.add_row(f"gate {plain(said.gate)}", f"{said.verdict.value}: {plain(said.reason)}")
    for name, counts in shown.results.items():
        counted = ", ".join(f"{count} {_PLURALS[kind]}" for kind, count in sorted(counts.items()))
        table.add_row(f"played for {plain(name)}", counted)
        for kind in (Result.LOSS, Result.WIN, Result.EXCLUDED):
            ids = dict.fromkeys(each.task.task_id for each in found if each.gate == name and each.result is kind)
            if ids:
                table.add_row("", plain(f"{_PLURALS[kind]}: {', '.join(ids)}"))
    if not found:
        table.add_row("played", "no rollout is recorded: it was judged before they were kept, or not yet")
    return table


def _match_lines(match: Match) -> Iterator[Text]:
    """The task with both conversations: once what both read at first, then how each went on."""
    again = f", time {match.repeat + 1}" if match.repeat else ""
    task, of = printable(match.task.task_id), printable(match.gate)
    yield Text(f"\n━━ {task}: {match.result.value} (gate {of}{again}) ━━", style="bold")
    sides = [
        (_named(match.other), match.by_other),
        ("candidate", match.by_candidate),
    ]
    talks = [entry.rollout.messages for _, entry in sides if entry is not None and entry.rollout is not None]
    common = 0
    if len(talks) == 2:
        for one, other in zip(*talks, strict=False):
            if not same_message(one, other):
                break
            common += 1
        for message in talks[0][:common]:
            yield from _message_lines(message)
    for name, entry in sides:
        yield Text(f"\n── {name}: {_outcome(entry)}", style="bold")
        if entry is not None and entry.rollout is not None:
            for message in entry.rollout.messages[common:]:
                yield from _message_lines(message)


def _named(adapter: str) -> str:
    return "the base model" if adapter == BASE else f"compared with {adapter[:12]}" if adapter else "nothing else"


def _outcome(entry: Entry | None) -> str:
    if entry is None:
        return "not played"
    if entry.rollout is None:
        return f"excluded: {printable(entry.excluded or '')}"
    rollout = entry.rollout
    invalid = f", {rollout.invalid_actions} not understood" if rollout.invalid_actions else ""
    solved = "solved" if rollout.success else "not solved"
    return f"{solved}, score {rollout.score:.2f}, {rollout.steps} actions{invalid}"


def _message_lines(message: Message) -> Iterator[Text]:
    style = "green" if message.role == "assistant" else ""
    if message.reasoning_content:
        yield Text(f"{message.role}, thinking: {printable(message.reasoning_content)}", style="dim")
    if message.text or not message.calls:
        yield Text(f"{message.role}: {printable(message.text)}", style=style)
    for each in message.calls:
        said = f"{each.function.name}({each.function.arguments})" if each.function else each.model_dump_json()
        yield Text(f"{message.role} calls {printable(said)}", style=style)


_PLURALS = {
    Result.WIN: "wins",
    Result.LOSS: "losses",
    Result.TIE: "ties",
    Result.EXCLUDED: "excluded",
    Result.UNPAIRED: "played by one side only",
}
