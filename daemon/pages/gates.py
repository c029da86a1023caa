"""Cycles with their verdicts, and what the gates said of one candidate, task by task."""

import asyncio
from collections import Counter
from collections.abc import Sequence

from starlette.requests import Request
from starlette.responses import Response

from daemon.learning.why import find
from daemon.pages.parts import Parts, whole_number
from daemon.pages.rendering import page
from daemon.registry.audit import AuditEntry
from daemon.registry.lifecycle import State
from daemon.registry.refs import states_of
from evaluation.matches import Match, Result, matches
from evaluation.report import GateReport
from evaluation.rollout_log import newest_rollouts, read_rollouts
from ratchet_client.settings import FrozenModel

MOST_CYCLES = 50
MOST_TASKS = 50


class Trial(FrozenModel):
    """What the files of a home have of the trial of `adapter`; `report` is None while it is not over."""

    adapter: str
    state: State | None
    report: GateReport | None
    matches: tuple[Match, ...]

    @property
    def counts(self) -> dict[str, dict[Result, int]]:
        """The number of tasks by gate and result."""
        names = dict.fromkeys(match.gate for match in self.matches)
        return {name: Counter(match.result for match in self.matches if match.gate == name) for name in names}


async def read_trial(parts: Parts, name: str) -> Trial:
    """The trial of the adapter that is called so. Raises `UnknownAdapterError`, and `GateError` for damaged files."""

    def read() -> Trial:
        registry = parts.registry
        digest = find(name, registry, parts.adapters)
        found = tuple(matches(read_rollouts(newest_rollouts(parts.home, digest)), digest))
        report = GateReport.read(registry.adapter_folder(digest))
        return Trial(adapter=digest, state=registry.state(digest), report=report, matches=found)

    return await asyncio.to_thread(read)


async def gates(request: Request, parts: Parts) -> Response:
    entries = await asyncio.to_thread(parts.registry.audit.read)
    cycles = [entry for entry in reversed(entries) if entry.cycle is not None]
    return page(
        request,
        parts,
        "gates.html",
        title="Cycles and gates",
        cycles=cycles[:MOST_CYCLES],
        others=len(cycles[MOST_CYCLES:]),
        on_trial=_on_trial(entries),
    )


async def gate(request: Request, parts: Parts) -> Response:
    trial = await read_trial(parts, request.query_params.get("adapter", ""))
    wanted = request.query_params.get("result", "")
    only = request.query_params.get("gate", "")
    chosen = [
        match for match in trial.matches if (not wanted or match.result == wanted) and (not only or match.gate == only)
    ]
    # What one side alone solved is what a person looks for first.
    chosen.sort(key=lambda match: _ORDER.index(match.result))
    start = whole_number(request.query_params.get("from", "")) or 0
    return page(
        request,
        parts,
        "gate.html",
        title=f"Gates of {trial.adapter[:12]}",
        trial=trial,
        tasks=chosen[start : start + MOST_TASKS],
        total=len(chosen),
        start=start,
        step=MOST_TASKS,
        wanted=wanted,
        only=only,
        results=list(Result),
    )


_ORDER = (Result.LOSS, Result.WIN, Result.EXCLUDED, Result.UNPAIRED, Result.TIE)


def _on_trial(entries: Sequence[AuditEntry]) -> list[str]:
    return [adapter for adapter, state in states_of(entries).items() if state is State.EVALUATING]
