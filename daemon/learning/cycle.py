"""One cycle of the loop: snapshot, training, gate, verdict and, if it won, promotion.

The learn role runs it whenever enough was learned about; the demo runs it step by step. Nothing here touches what
serves but the request to promote, which the serve role carries out.
"""

import asyncio
import shutil
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Protocol

import structlog

from daemon.config import Settings
from daemon.learning.anchor import served_anchor
from daemon.learning.domain import (
    DomainTasks,
    check_canary,
    check_recorded,
    domain_tasks,
    golden_tasks,
    holdout_of,
)
from daemon.learning.forgetting import mark_exposed, unmarked_ancestor
from daemon.learning.measured import flips_so_far
from daemon.learning.task_lists import TaskSupply, counting, drawn_lists, labels_of, trial_name
from daemon.registry.approval import state_after
from daemon.registry.audit import AuditEntry
from daemon.registry.ledger import reserve
from daemon.registry.lifecycle import State
from daemon.registry.registry import Registry
from daemon.registry.schemas import BASE, CycleReport, PromoteRequest, Reservation
from daemon.registry.task_uses import TaskUses
from daemon.serving.control_client import ControlClient
from evaluation.arena import Arena
from evaluation.gates.gate import Competitor, Evidence
from evaluation.gates.improvement import expected_of
from evaluation.gates.recorded import RECORDED
from evaluation.gates.registry import load_gates
from evaluation.report import Comparison, GateReport
from evaluation.rollout_log import RolloutLog, rollouts_path
from evaluation.rollouts import Played, paired
from evaluation.trial import hold_trial
from learners.adapters import AdapterStore, manifest_of
from learners.canaries import Canary, draw_canaries
from learners.held_out_states import RecordedState, read_held_out_states
from learners.provenance import Provenance
from learners.settings import LearnerSettings, TrainingJob
from learners.snapshots import Snapshot, build_snapshot
from learners.training import run_training
from streams.environments.harness import ChatHarness
from streams.errors import RatchetError
from streams.events import Task
from streams.ids import uuid7
from streams.policy.client import PolicyClient
from streams.runtime.crash_points import CrashPoint, reach
from streams.sandboxes.pool import SandboxPool, sandbox_pool
from streams.store.client import StoreClient
from streams.store.queries.learning import BRANCHING_STATE
from streams.trust.holdout import Split

log = structlog.get_logger()

ACTOR = "learner"
OUT_OF_DOMAIN = "out_of_domain"
"""The name under which the tasks of the other fold are recorded, beside those of gates."""

# These play tasks, or judge what was played.
_IN_SANDBOXES = ("improvement", "sentinels", "no_forgetting", "golden", "slices")


class Phase(StrEnum):
    """The phases of a cycle."""

    TRAINING = "training"
    GATE = "gate"
    OUT_OF_DOMAIN = "out of domain"


class Watcher(Protocol):
    """Is told how a phase advances: `done` of `total` updates or episodes, and a word on it."""

    def __call__(self, phase: Phase, done: int, total: int, note: str) -> None: ...


@dataclass(frozen=True, slots=True)
class Loop:
    """The clients, stores and tasks of a cycle.

    Made by `open_loop`; the parts are shared by all cycles of a process. Where no environment is set, no task is there
    and `pool` is not open.
    """

    settings: Settings
    base: Path
    registry: Registry
    adapters: AdapterStore
    store: StoreClient
    policy: PolicyClient
    control: ControlClient
    pool: SandboxPool
    tasks: tuple[Task, ...]
    held_out: tuple[Task, ...]
    out_of_domain: tuple[Task, ...]
    confirmation: tuple[Task, ...] = ()
    golden: tuple[Task, ...] = ()
    # Of what suite and fold the environment generates further tasks; none where this is empty.
    generated: tuple[str, str] = ("", "")
    unsolvable: tuple[Task, ...] = ()

    async def branching_state(self) -> tuple[int, int]:
        """Return the number of states and failed episodes to branch from, and the number branched from."""
        counts = await self.store.query(BRANCHING_STATE)
        return counts["asked"][0].as_py(), counts["answered"][0].as_py()

    def supply(self) -> TaskSupply:
        """The tasks that gates may be given."""
        return TaskSupply((*self.held_out, *self.confirmation), self.golden, *self.generated)

    def provenance(self) -> Provenance:
        """Whose data the adapters saw, as their files tell it now."""
        return Provenance(self.adapters, self.settings.home / "snapshots")


@asynccontextmanager
async def open_loop(settings: Settings, base: Path) -> AsyncIterator[Loop]:
    """Connect to the roles that run and list the tasks of the gate.

    Raises `ConfigurationError` when the domain's environment cannot be played, or recorded states are to judge without
    a canary.
    """
    domain = settings.domain
    check_canary(settings)
    async with (
        StoreClient(settings.store_url) as store,
        PolicyClient(settings.serving.inference_url, timeout_s=settings.serving.timeout_s) as policy,
        ControlClient(settings.control_url) as control,
        AsyncExitStack() as opened,
    ):
        pool = sandbox_pool(domain.environment, settings.branching, size=1)
        found, golden = DomainTasks("", (), ()), tuple[Task, ...]()
        if domain.environment:
            await opened.enter_async_context(pool)
            found = await domain_tasks(domain, pool)
            golden = await golden_tasks(found, domain, settings.gate.golden.tasks, pool)
            settings = settings.model_copy(update={"holdout": await asyncio.to_thread(holdout_of, settings)})
        yield Loop(
            settings=settings,
            base=base,
            registry=Registry(settings.home),
            adapters=AdapterStore(settings.home / "adapters"),
            store=store,
            policy=policy,
            control=control,
            pool=pool,
            tasks=found.tasks,
            held_out=found.held_out(settings.holdout),
            # Gates never train on the other fold, but the same rule keeps its tasks as fresh as the others'.
            out_of_domain=tuple(
                task for task in found.out_of_domain if settings.holdout.split(task.task_id) is not Split.TRAIN
            )[: domain.out_of_domain_tasks],
            confirmation=found.held_out(settings.holdout, Split.CONFIRMATION),
            golden=golden,
            generated=(found.suite, domain.fold) if found.generates else ("", ""),
            unsolvable=found.unsolvable,
        )


async def run_cycle(loop: Loop, settings: LearnerSettings, watch: Watcher) -> CycleReport:
    """Learn from what the store holds now, and let the candidate serve if it proves better. Returns the report.

    Raises `RatchetError` when a step could not be carried out; what serves is then as it was.
    """
    began = time.monotonic()
    if loop.settings.domain.environment:
        await check_recorded(loop.settings.domain, loop.store)
    snapshot = await build_snapshot(
        loop.store,
        loop.settings.holdout,
        loop.settings.home / "snapshots",
        most_per_principal=settings.most_per_principal,
        canaries=draw_canaries(settings.canaries, loop.settings.seed, loop.settings.holdout),
    )
    manifest = snapshot.manifest
    log.info("snapshot", id=manifest.snapshot_id, as_of=manifest.as_of, episodes=manifest.episodes)
    candidate = await train_candidate(loop, settings, snapshot, watch)
    loop.registry.enter(candidate, State.TRAINED, ACTOR, f"trained on snapshot {manifest.snapshot_id}")
    return await judge(loop, candidate, watch, began)


async def train_candidate(loop: Loop, settings: LearnerSettings, snapshot: Snapshot, watch: Watcher) -> str:
    """Train on from the champion; the digest of the adapter that came of it.

    A champion that is marked for retraining is passed over for its nearest ancestor that is not.
    """
    provenance = loop.provenance()
    await mark_exposed(loop.store, loop.registry, provenance, ACTOR)
    champion = loop.registry.refs().champion
    ancestor = unmarked_ancestor(loop.registry, provenance, champion)
    if ancestor != champion:
        log.warning("not trained on from the champion: it is to be retrained", champion=champion, parent=ancestor)
    parent = None if ancestor == BASE else ancestor
    job = TrainingJob(
        base=loop.base,
        snapshot=snapshot.folder,
        output=loop.settings.home / "training" / uuid7(),
        parent=None if parent is None else loop.adapters.folder(parent),
        settings=_with_stages(settings, snapshot),
        seed=loop.settings.seed,
    )
    await run_training(
        job,
        lambda progress: watch(
            Phase.TRAINING, progress.update, progress.updates, f"{progress.objective}, loss {progress.loss:.3f}"
        ),
    )
    candidate = loop.adapters.add(job.output, manifest_of(job, snapshot.manifest, parent))
    shutil.rmtree(job.output)
    return candidate


def _with_stages(settings: LearnerSettings, snapshot: Snapshot) -> LearnerSettings:
    """The stages that have something to learn from: without a sandbox there are no branches for a world model."""
    if snapshot.manifest.branches:
        return settings
    stages = tuple(stage for stage in settings.stages if stage.objective != "world_model")
    return settings.model_copy(update={"stages": stages or settings.stages})


async def judge(loop: Loop, candidate: str, watch: Watcher, began: float) -> CycleReport:
    """Hold the trial of `candidate`, write its report, record the cycle, and promote it if it won and may.

    A trial that was broken off is resumed: what its record has is not played again. `began` is when the cycle did, on
    the monotonic clock.
    """
    registry = loop.registry
    reach(CrashPoint.TRIAL_BEFORE)
    registry.enter(candidate, State.EVALUATING, ACTOR, "to be played on held-out tasks")
    reach(CrashPoint.TRIAL_AFTER)
    status = await loop.control.status()
    if status.served is None:
        raise RatchetError("nothing serves yet, so nothing to compare the candidate with: see the serve role's log")
    # What is played after this has its alpha in the log.
    reserved = reserve(registry.audit, candidate, status.champion, ACTOR, loop.settings.gate)
    name = registry.name(candidate, ACTOR, "to be evaluated")
    await loop.policy.load_adapter(name, str(loop.adapters.folder(candidate).resolve()))
    try:
        champion, itself = Competitor(status.champion, status.served), Competitor(candidate, name)
        served = (Competitor(BASE, BASE), champion, itself)
        async with served_anchor(registry, loop.adapters, loop.policy, served, ACTOR) as anchor:
            report = await _hold_trial(loop, champion, itself, anchor, reserved, watch)
    finally:
        await loop.policy.unload_adapter(name)
    report.write(loop.adapters.folder(candidate))
    return await conclude(loop, candidate, status.champion, report, began)


async def conclude(loop: Loop, candidate: str, champion: str, report: GateReport, began: float) -> CycleReport:
    """Record what the trial against `champion` found, and promote `candidate` if it won and no person is to be asked.

    A candidate that won against a champion that does not serve any more has proved nothing about the one that does.
    """
    registry = loop.registry
    state, reason = state_after(report.verdict, report.reason, loop.settings.promotion.approval)
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
        )
        await loop.control.record_cycle(cycle)
        reach(CrashPoint.CYCLE_AFTER)
    log.info("verdict", adapter=cycle.adapter, verdict=report.verdict.value, state=verdict.state, reason=verdict.reason)
    if verdict.state is State.APPROVED:
        await loop.control.promote(PromoteRequest(digest=cycle.adapter, reason=verdict.reason, actor=ACTOR))
    if verdict.state is State.HELD:
        remedy = "`ratchet approve ADAPTER --reason WHY`, or `ratchet reject`"
        log.warning("a candidate waits for a person", adapter=cycle.adapter, reason=verdict.reason, remedy=remedy)
    return cycle


async def _hold_trial(
    loop: Loop,
    champion: Competitor,
    candidate: Competitor,
    anchor: Competitor,
    reserved: Reservation,
    watch: Watcher,
) -> GateReport:
    with RolloutLog(rollouts_path(loop.settings.home, candidate.adapter)) as record:
        plays = bool(loop.settings.domain.environment)
        harness = (await loop.pool.describe()).harness if plays else ChatHarness()
        arena = Arena(loop.policy, loop.pool, harness, loop.settings.gate.rollouts, record=record)
        try:
            return await _played(loop, arena, champion, candidate, anchor, reserved, watch)
        finally:
            # The next trial's sides begin in processes that nobody has used.
            await loop.pool.end_groups()


async def _played(
    loop: Loop,
    arena: Arena,
    champion: Competitor,
    candidate: Competitor,
    anchor: Competitor,
    reserved: Reservation,
    watch: Watcher,
) -> GateReport:
    settings = loop.settings.gate
    gates = gate_names(loop.settings)
    recorded: tuple[RecordedState, ...] = ()
    if RECORDED in gates:
        recorded = await read_held_out_states(
            loop.store, loop.settings.holdout, settings.recorded.states, loop.settings.learner.most_per_principal
        )
    results = [result for entry in loop.registry.audit.read() if entry.cycle for result in entry.cycle.gates]
    tasks = await drawn_lists(loop.settings, loop.registry, loop.pool, loop.supply(), candidate.adapter)
    evidence = Evidence(
        arena=arena,
        candidate=candidate,
        champion=champion,
        anchor=anchor,
        base=Competitor(BASE, BASE),
        tasks=replace(tasks, unsolvable=loop.unsolvable),
        alpha=reserved.alpha,
        holdout=loop.settings.holdout,
        progress=lambda gate, done, total: watch(Phase.GATE, done, total, f"{gate}, episodes"),
        canaries=planted_canaries(loop, candidate.adapter),
        recorded=recorded,
        canary_share=loop.settings.serving.canary.share,
        expected=expected_of(results),
        labels=await labels_of(tasks.selection, loop.store, loop.settings.holdout),
    )
    # What is begun is used up, whatever comes of it.
    count = counting(TaskUses(loop.settings.home), trial_name(loop.registry, candidate.adapter), evidence)
    evidence.arena = replace(evidence.arena, before_play=count)
    verdict, reason = await hold_trial(evidence, load_gates(gates, settings), settings.most_excluded)
    other = await _out_of_domain(loop, evidence, watch)
    return GateReport.of(evidence, verdict, reason, settings, other, flips_so_far(loop.settings.home))


def gate_names(settings: Settings) -> tuple[str, ...]:
    """The gates of a trial. Without a sandbox `recorded` stands for `improvement`, and those that play are left out."""
    gates = settings.gate.gates
    if settings.domain.environment:
        return gates
    others = tuple(name for name in gates if name not in (*_IN_SANDBOXES, RECORDED))
    return (RECORDED, *others)


def planted_canaries(loop: Loop, adapter: str) -> tuple[Canary, ...]:
    """Those that were planted in the snapshots of `adapter` and of its ancestors, each once."""
    line = loop.provenance().lineage(adapter)
    planted = [canary for one in line if one.manifest is not None for canary in one.manifest.snapshot.canaries]
    return tuple(dict.fromkeys(planted))


async def _out_of_domain(loop: Loop, evidence: Evidence, watch: Watcher) -> Comparison | None:
    """Both sides on the other fold; None where it has no tasks."""
    tasks, played = loop.out_of_domain, list[Played]()
    if not tasks:
        return None
    arena = evidence.arena.for_gate(OUT_OF_DOMAIN, evidence.adapters())
    for side, competitor in enumerate((evidence.champion, evidence.candidate)):

        def report(done: int, total: int, before: int = side * len(tasks)) -> None:
            watch(Phase.OUT_OF_DOMAIN, before + done, 2 * total, "episodes")

        played.append(await arena.play(tasks, competitor.served, report))
    return Comparison.of(evidence.champion.served, evidence.candidate.served, paired(tasks, *played))
