"""Measurements of the assumptions that gates are planned by, from real gates and A/A runs: phi and the flip rate.

The report of a gate and `ratchet gate stats` show it.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path

import structlog
from pydantic import AwareDatetime, TypeAdapter, ValidationError

from daemon.registry.schemas import Adapter
from evaluation.agreement import ASSUMED_FLIPS, ASSUMED_PHI, Agreement
from evaluation.report import GATE_FILE, GateReport
from evaluation.rollouts import Rollout
from ratchet_client.errors import RatchetError
from ratchet_client.settings import FrozenModel
from streams.runtime.files import write_atomically

log = structlog.get_logger()

AA_FILE = "aa.json"


class AARun(FrozenModel):
    """One adapter against itself: it played `tasks` tasks `plays` times; `agreement` is of each play with the next."""

    adapter: Adapter
    at: AwareDatetime
    tasks: int
    plays: int
    agreement: Agreement


class Measured(FrozenModel):
    """Measurements beside the assumptions; None where nothing measured it yet.

    `pairs` are champion and candidate in the gates, `flips` one adapter with itself: in A/A runs, and as the champion
    of several gates that played the same task.
    """

    gates: int
    pairs: Agreement
    flips: Agreement
    phi: float | None
    assumed_phi: float = ASSUMED_PHI
    discordance: float | None
    flip_rate: float | None
    flip_rate_interval: tuple[float, float] | None
    assumed_flip_rate: float = ASSUMED_FLIPS


_RUNS = TypeAdapter(tuple[AARun, ...])


def aa_runs(home: Path) -> tuple[AARun, ...]:
    """The A/A runs so far, oldest first. Raises `RatchetError` when their file is damaged."""
    path = home / AA_FILE
    try:
        return _RUNS.validate_json(path.read_bytes())
    except FileNotFoundError:
        return ()
    except ValidationError as error:
        raise RatchetError(
            f"{path} is damaged ({error.error_count()} fields are wrong): restore it, or remove it"
        ) from error


def keep_aa_run(home: Path, run: AARun) -> None:
    """Add a run to the file."""
    write_atomically(home / AA_FILE, _RUNS.dump_json((*aa_runs(home), run), indent=1) + b"\n")


def agreement_of_plays(plays: Sequence[Iterable[Rollout]]) -> Agreement:
    """Return how far each play of a list of tasks agrees with the next, on the tasks that both have."""
    total = Agreement()
    by_task = [{rollout.task_id: rollout.success for rollout in play} for play in plays]
    for first, second in pairwise(by_task):
        total += Agreement.of((success, second[task]) for task, success in first.items() if task in second)
    return total


def champions_replayed(reports: Iterable[GateReport]) -> Agreement:
    """Champions with themselves: those that several gates had play the same task.

    A champion changes only by a verdict on another adapter, so how its own plays agree has selected nothing.
    """
    plays: defaultdict[tuple[str, str], list[bool]] = defaultdict(list)
    for report in reports:
        if report.held_out is not None:
            # A served name ends in the adapter's digest, and an adapter is loaded under several.
            adapter = report.held_out.champion.model.rpartition("-")[2]
            for row in report.held_out.tasks:
                plays[adapter, row.task_id].append(row.champion_success)
    return Agreement.of(pair for each in plays.values() for pair in pairwise(each))


def measured(home: Path) -> Measured:
    """Read all reports of gates, and the A/A runs. Raises `RatchetError` when a file is damaged."""
    paths = sorted((home / "adapters").glob(f"*/{GATE_FILE}"), key=lambda path: path.stat().st_mtime)
    reports = [report for path in paths if (report := GateReport.read(path.parent)) is not None]
    pairs = sum((report.agreement() for report in reports), Agreement())
    flips = sum((run.agreement for run in aa_runs(home)), champions_replayed(reports))
    return Measured(
        gates=sum(report.held_out is not None for report in reports),
        pairs=pairs,
        flips=flips,
        phi=pairs.phi,
        discordance=pairs.discordance,
        flip_rate=flips.discordance,
        flip_rate_interval=flips.discordance_interval,
    )


def flips_so_far(home: Path) -> Agreement | None:
    """The flips that were measured; a damaged file of an earlier trial does not fail the one that asks."""
    try:
        return measured(home).flips
    except RatchetError as error:
        log.warning("flips of one adapter are not told", reason=str(error))
        return None
