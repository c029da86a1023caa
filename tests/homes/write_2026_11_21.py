"""Write the home of commit 5e70527: texts as actions, spans in `otlp.sqlite`, one gate, no signatures.

Run in a checkout of that commit as `PYTHONPATH=. python write_2026_11_21.py FOLDER`; see the README beside it.
"""

import json
import sys
from pathlib import Path

from daemon.lifecycle import State
from daemon.schemas import CycleReport
from evaluation.gate import Evaluation, decide
from streams.events import Message, RecordedStep
from streams.otlp.state import AssemblyState
from streams.recorder import redaction_key
from streams.settings import StoreSettings
from tests.otlp_spans import game
from tests.streams.episodes import HOLDOUT, KAFKA, episode, records, result, task
from tests.trained import entered

from daemon.registry import Mark, Registry
from evaluation.report import GateReport
from evaluation.rollouts import Rollout
from evaluation.settings import GateSettings
from learners.snapshots import write_snapshot
from learners.trajectories import Branch, Trajectory
from streams.otlp.settings import OtlpSettings
from streams.store import Store

folder = Path(sys.argv[1])
home = folder / "home"
redaction_key(home)
store = Store.open(StoreSettings(path=home / "store.duckdb"), HOLDOUT, KAFKA)
events = [*episode("e0"), *episode("e1", "human"), *episode("e2", "policy", success=False)]
store.append(records(events))
store.append([result("e0")])
as_of = store.sequence
published = [(KAFKA.events_topic, event.to_json()) for event in events]
published += [(pending.message.topic, pending.message.value) for pending in store.pending(100)]
published.append((KAFKA.transitions_topic, result("e0").received.value))
lines = [json.dumps({"topic": topic, "value": value.decode()}) + "\n" for topic, value in published]
(folder / "records.jsonl").write_text("".join(lines))
store.close()

spans = AssemblyState.open(OtlpSettings(path=home / "otlp.sqlite"), 0.0)
spans.add(game()[:-1], now=0.0)
spans.close()

learned = Trajectory(
    episode_id="e0",
    task_id=task().task_id,
    opening=(Message(role="user", content="You are in a kitchen."),),
    steps=(
        RecordedStep(action="go 0", observation="You went 0."),
        RecordedStep(action="go 1", observation="You went 1."),
    ),
    branches=(Branch(1, "jump", "You jump.", "policy", "sandbox_exact"),),
    principals=("tenant/e0",),
)
snapshot = write_snapshot([learned], HOLDOUT, home / "snapshots", as_of, {"ratchet.events/0": len(events)})


def played(successes: int) -> tuple[Rollout, ...]:
    return tuple(Rollout(f"twc/train/{n}", n < successes, float(n < successes), 1, 0, ("go",)) for n in range(40))


registry, champion = Registry(home), "base"
gate = GateSettings(min_tasks=40)
for number, (weights, before, after) in enumerate((("first", 2, 12), ("second", 12, 22)), start=1):
    adapter = entered(home, snapshot, None if champion == "base" else champion, weights)
    registry.enter(adapter, State.TRAINED, "learner", "cycle")
    registry.enter(adapter, State.EVALUATING, "learner", "cycle")
    decision = decide(played(before), played(after), gate)
    evaluation = Evaluation(
        champion, registry.name(adapter, "learner", "gate"), played(before), played(after), decision
    )
    GateReport.of(evaluation, gate).write(home / "adapters" / adapter)
    registry.enter(adapter, State.APPROVED, "learner", decision.reason)
    told = {"champion_success": before / 40, "candidate_success": after / 40, "p_value": decision.p_better}
    cycle = {"cycle": number, "verdict": decision.verdict, "reason": decision.reason, "tasks": 40, "seconds": 1.0}
    registry.record_cycle(CycleReport(adapter=adapter, champion=champion, **cycle, **told), "learner")
    registry.promote(adapter, "learner", decision.reason)
    champion = adapter
registry.roll_back(registry.refs().previous, "anna", "complaints")
registry.mark_for_retraining([Mark(champion, "0197c2aa-0000-7000-8000-000000000000", "consent was revoked")], "learner")
for left in (home / "training").iterdir():
    left.unlink()
(home / "training").rmdir()
