"""A candidate's trial: what its gates judge from, their verdict on record, and what follows from it."""

import asyncio
import time
from dataclasses import dataclass, replace

import structlog

from daemon.learning.anchor import served_anchor
from daemon.learning.gates import gate_names
from daemon.learning.loop import ACTOR, Loop, Note, Phase, Watcher
from daemon.learning.measured import flips_so_far
from daemon.learning.task_lists import counting, drawn_lists, labels_of, trial_name, trial_number
from daemon.registry import holds
from daemon.registry.approval import state_after
from daemon.registry.audit import AuditEntry
from daemon.registry.evidence import Fingerprint, fingerprints
from daemon.registry.hints import decisions
from daemon.registry.ledger import reserve
from daemon.registry.lifecycle import State
from daemon.registry.schemas import BASE, CycleReport, PromoteRequest, Reservation
from daemon.registry.task_uses import TaskUses
from evaluation.arena import Arena
from evaluation.gates.gate import Competitor, Evidence
from evaluation.gates.improvement import expected_of
from evaluation.gates.recorded import RECORDED
from evaluation.gates.registry import load_gates
from evaluation.gates.verdict import Verdict
from evaluation.report import GATE_FILE, REPORT_FILE, Comparison, GateReport
from evaluation.rollout_log import RolloutLog, newest_rollouts, rollouts_path
from evaluation.rollouts import paired
from evaluation.trial import hold_trial
from learners.canaries import Canary
from learners.held_out_states import RecordedState, read_held_out_states
from ratchet_client.crash_points import CrashPoint, reach
from ratchet_client.errors import RatchetError
from streams.environments.harness import ChatHarness

log = structlog.get_logger()

OUT_OF_DOMAIN = "out_of_domain"
"""The name under which the tasks of the other fold are recorded, beside those of gates."""


async def judge(loop: Loop, candidate: str, watch: Watcher, began: float) -> CycleReport:
    """Hold the trial of `candidate`, write its report, record the cycle, and promote it if it won and may.

    A trial that was broken off is resumed: what its record has is not played again. `began` is when the cycle did, on
    the monotonic clock.
    """
    registry = loop.registry
    reach(CrashPoint.TRIAL_BEFORE)
    registry.enter(candidate, State.EVALUATING, ACTOR, "to be played on held-out tasks")
    reach(CrashPoint.TRIAL_AFTER)
    status = await loop.served_status()
    if status.served is None:
        raise RatchetError("nothing serves yet, so nothing to compare the candidate with: see the serve role's log")
    # What is played after this has its alpha in the log.
    reserved = reserve(registry.audit, candidate, status.champion, ACTOR, loop.settings.gate)
    await asyncio.to_thread(loop.adapters.check, candidate)
    name = registry.name(candidate, ACTOR, "to be evaluated")
    await loop.policy.load_adapter(name, str(loop.adapters.folder(candidate).resolve()))
    try:
        champion, itself = Competitor(status.champion, status.served), Competitor(candidate, name)
        served = (Competitor(BASE, BASE), champion, itself)
        async with served_anchor(registry, loop.adapters, loop.policy, served, ACTOR) as anchor:
            report = await _hold_trial(loop, _Sides(champion, itself, anchor), reserved, watch)
    finally:
        await loop.policy.unload_adapter(name)
    report.write(loop.adapters.folder(candidate))
    return await conclude(loop, candidate, status.champion, report, began)


async def conclude(loop: Loop, candidate: str, champion: str, report: GateReport, began: float) -> CycleReport:
    """Record what the trial against `champion` found, and promote `candidate` if it won and no person is to be asked.

    A candidate that won against a champion that does not serve any more has proved nothing about the one that does.
    """
    registry = loop.registry
    hold = holds.standing(registry.audit.read())
    on_hold = "" if hold is None else holds.why_on_hold(hold)
    state, reason = state_after(report.verdict, report.reason, loop.settings.promotion.approval, on_hold)
    if state is State.APPROVED and registry.refs().champion != champion:
        state = State.INCONCLUSIVE
        reason = f"{reason} But what it was judged against was replaced meanwhile, so it does not serve."
    reach(CrashPoint.VERDICT_BEFORE)
    verdict = registry.enter(candidate, state, ACTOR, reason, against=champion)
    reach(CrashPoint.VERDICT_AFTER)
    return await announce(loop, verdict, report, began)


async def announce(loop: Loop, verdict: AuditEntry, report: GateReport, began: float) -> CycleReport:
    """Record the cycle that ended with the entry `verdict`, and promote the candidate if that approves it.

    A cycle that is recorded already is not recorded again.
    """
    told = [entry for entry in loop.registry.audit.read() if entry.cycle is not None]
    later = [entry.cycle for entry in told if entry.subject == verdict.subject and entry.sequence > verdict.sequence]
    cycle = later[0] if later else None
    if cycle is None:
        cycle = CycleReport(
            cycle=len(told) + 1,
            adapter=verdict.subject,
            champion=verdict.against or loop.registry.refs().champion,
            verdict=report.verdict,
            reason=verdict.reason,
            champion_success=report.held_out.champion.success if report.held_out else None,
            candidate_success=report.held_out.candidate.success if report.held_out else None,
            tasks=report.held_out.candidate.tasks if report.held_out else 0,
            gates=report.gates,
            seconds=time.monotonic() - began,
            evidence=_evidence_of(loop, verdict.subject),
        )
        await loop.control.record_cycle(cycle)
        reach(CrashPoint.CYCLE_AFTER)
    log.info("verdict", adapter=cycle.adapter, verdict=report.verdict.value, state=verdict.state, reason=verdict.reason)
    if verdict.state is State.APPROVED:
        await loop.control.promote(PromoteRequest(digest=cycle.adapter, reason=verdict.reason, actor=ACTOR))
    if verdict.state is State.HELD:
        remedy = decisions(loop.registry.group)
        log.warning("a candidate waits for a person", adapter=cycle.adapter, reason=verdict.reason, remedy=remedy)
    return cycle


def _evidence_of(loop: Loop, adapter: str) -> dict[str, Fingerprint]:
    home, folder = loop.settings.home, loop.adapters.folder(adapter)
    files = (folder / GATE_FILE, folder / REPORT_FILE, newest_rollouts(home, adapter), TaskUses(home).path)
    return fingerprints(home, files)


@dataclass(frozen=True, slots=True)
class _Sides:
    """The adapters of a trial, as the server has them."""

    champion: Competitor
    candidate: Competitor
    anchor: Competitor


async def _hold_trial(loop: Loop, sides: _Sides, reserved: Reservation, watch: Watcher) -> GateReport:
    settings, adapter = loop.settings, sides.candidate.adapter
    number = trial_number(loop.registry, adapter)
    with RolloutLog(rollouts_path(settings.home, adapter, number)) as record:
        plays = bool(settings.domain.environment)
        harness = (await loop.pool.describe()).harness if plays else ChatHarness()
        arena = Arena(loop.policy, loop.pool, harness, settings.gate.rollouts, record=record)
        evidence = await _evidence(loop, arena, sides, reserved, watch)
        # What is begun is used up, whatever comes of it.
        count = counting(TaskUses(settings.home), trial_name(loop.registry, adapter), evidence)
        evidence.arena = replace(arena, before_play=count)
        try:
            gates = load_gates(gate_names(settings), settings.gate)
            verdict, reason = await hold_trial(evidence, gates, settings.gate)
            is_lost = verdict in (Verdict.REJECT, Verdict.INCONCLUSIVE)
            other = None if is_lost else await _out_of_domain(loop, evidence, watch)
        finally:
            # The next trial's sides begin in processes of their own.
            await loop.pool.end_groups()
    return GateReport.of(evidence, verdict, reason, settings.gate, other, flips_so_far(settings.home))


async def _evidence(loop: Loop, arena: Arena, sides: _Sides, reserved: Reservation, watch: Watcher) -> Evidence:
    settings, adapter = loop.settings, sides.candidate.adapter
    recorded: tuple[RecordedState, ...] = ()
    if RECORDED in gate_names(settings):
        recorded = await read_held_out_states(
            *(loop.store, settings.holdout, settings.gate.recorded.states, settings.learner.most_per_principal),
            loop.members,
        )
    results = [result for entry in loop.registry.audit.read() if entry.cycle for result in entry.cycle.gates]
    tasks = await drawn_lists(settings, loop.registry, loop.pool, loop.supply(), adapter)
    return Evidence(
        arena=arena,
        candidate=sides.candidate,
        champion=sides.champion,
        anchor=sides.anchor,
        base=Competitor(BASE, BASE),
        tasks=replace(tasks, unsolvable=loop.unsolvable),
        alpha=reserved.alpha,
        holdout=settings.holdout,
        progress=lambda gate, done, total: watch(Phase.GATE, done, total, Note(f"{gate}, episodes", gate)),
        canaries=planted_canaries(loop, adapter),
        recorded=recorded,
        canary_share=settings.serving.canary.share,
        expected=expected_of(results),
        labels=await labels_of(tasks.selection, loop.store, settings.holdout),
    )


def planted_canaries(loop: Loop, adapter: str) -> tuple[Canary, ...]:
    """Those that were planted in the snapshots of `adapter` and of its ancestors, each once."""
    line = loop.provenance().lineage(adapter)
    planted = [canary for one in line if one.manifest is not None for canary in one.manifest.snapshot.canaries]
    return tuple(dict.fromkeys(planted))


async def _out_of_domain(loop: Loop, evidence: Evidence, watch: Watcher) -> Comparison | None:
    """Both sides on the other fold; None where it has no tasks."""
    if not (tasks := loop.out_of_domain):
        return None
    arena = evidence.arena.for_gate(OUT_OF_DOMAIN, evidence.adapters())
    sides = (evidence.champion.served, evidence.candidate.served)
    played = await arena.play_together(
        tasks, sides, lambda done, total: watch(Phase.OUT_OF_DOMAIN, done, total, Note("episodes"))
    )
    return Comparison.of(*sides, paired(tasks, *played))
