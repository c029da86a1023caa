"""One value for each metric, so that the collectors show all of their series without a running Ratchet.

`metric_list.py` reads names, labels and meanings off these.
"""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

from daemon.registry.audit import Action, AuditEvent
from daemon.registry.canaries import RunningCanary
from daemon.registry.learner_status import LastCycle, LearnerPhase, LearnerReport, LearnerStatus
from daemon.registry.schemas import CanaryStart, CycleReport, Drill
from evaluation.account_summary import AccountSummary
from evaluation.gates.verdict import GateResult, Verdict
from learners.snapshots import SnapshotManifest
from streams.assembly.status import AssemblyStatus
from streams.store.status import BranchCounts, PracticeCounts, ProductionCounts, StoreStatus

ADAPTER = "0" * 64
SERVED = "ratchet-1-000000000000"
_NOW = datetime(2026, 1, 1, tzinfo=UTC)

STORE = StoreStatus(
    sequence=9,
    events={"step": 4, "outcome": 2},
    duplicates=1,
    dead_letters=1,
    quarantined=1,
    flagged=1,
    redactions={"email": 1},
    gaps=1,
    transitions={"production": 4},
    branches=BranchCounts(states=2, dropped=1, requested=2, executed=1),
    practice=PracticeCounts(episodes=2, tasks={"frontier": 1}),
    trusted={"train": 1},
    episodes={"undecided": {"a step is missing": 1}},
    dropped={"no sandbox": 1},
    outbox_pending=1,
    positions={},
    funnel={"ended": 3, "judged": 2, "trusted": 1, "restored": 1},
    production={SERVED: ProductionCounts(episodes=2, successes=1)},
)

CYCLE = CycleReport(
    cycle=1,
    adapter=ADAPTER,
    champion="base",
    verdict=Verdict.PROMOTE,
    reason="It is better.",
    champion_success=0.4,
    candidate_success=0.5,
    tasks=200,
    gates=(GateResult(gate="improvement", verdict=Verdict.PROMOTE, reason="It is better.", figures={"power": 0.9}),),
    seconds=60.0,
)

DRILLED = AuditEvent(
    actor="serve",
    action=Action.DRILLED,
    subject="base",
    reason="It was due.",
    drill=Drill(adapter="base", began=_NOW, seconds=1.0),
)

CANARY = RunningCanary(ADAPTER, CanaryStart(champion="base", share=0.1, salt="salt"), _NOW, sequence=1)

SNAPSHOT = SnapshotManifest(
    snapshot_id="one", as_of=1, offsets={}, episodes={"policy": 1}, steps=1, branches=1, holdout="none", files={}
)

HOLDOUT = AccountSummary(
    trials=1, generation=1, gates_until_rotation=3, fresh=10, uses={"selection": 5, "confirmation": 1}, mean_uses=1.0
)

ASSEMBLY = AssemblyStatus(absences={"masked": 1}, unrecognised={"scope: chat": 1})


def learners() -> Iterator[LearnerReport]:
    """A learner in each phase that has metrics of its own."""
    common = {"since": _NOW, "beat_at": datetime.now(UTC), "new": 3, "needed": 8, "missing": 2}
    last = LastCycle(at=_NOW - timedelta(hours=1), adapter=ADAPTER, verdict=Verdict.PROMOTE, reason="It is better.")
    training = {"done": 1, "total": 8, "left_s": 60, "objective": "imitation", "loss": 0.5, "gradient_norm": 1.0}
    for phase, own in (
        (LearnerPhase.BRANCHES, {}),
        (LearnerPhase.TRAINING, {**training, "memory_bytes": 1, "tokens_per_s": 300.0}),
    ):
        status = LearnerStatus.model_validate({"phase": phase, **common, **own})
        yield LearnerReport(running=True, status=status, last_cycle=last)
