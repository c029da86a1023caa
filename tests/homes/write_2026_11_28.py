"""Write a home as commits b371f88 and 134dece do: messages as actions, several gates; the second one signs adapters.

The process ends without closing its databases. Run in a checkout of the commit as
`PYTHONPATH=. python write_2026_11_28.py FOLDER`; see the README beside it.
"""

import json
import os
import sys
from dataclasses import replace
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path

from daemon.registry.ledger import reserve
from daemon.registry.lifecycle import State
from daemon.registry.registry import Mark, Registry
from daemon.registry.schemas import CycleReport
from daemon.registry.task_uses import TaskUses
from evaluation.gates.gate import Competitor
from evaluation.gates.verdict import GateResult, Verdict
from evaluation.report import GateReport
from evaluation.settings import GateSettings
from evaluation.task_account import TrialBegun
from learners.snapshots import write_snapshot
from streams.assembly.settings import AssemblySettings
from streams.assembly.state import AssemblyState
from streams.redaction.key import redaction_key
from streams.store.settings import StoreSettings
from streams.store.writer import Store
from streams.trust.holdout import Split
from tests.builders.episodes import HOLDOUT, KAFKA, TASK, TASKS, episode
from tests.builders.spans import game
from tests.builders.stored import Log, branches, recovery
from tests.builders.trained import attempt, entered, trajectory
from tests.builders.trials import evidence, pairs, tasks

folder = Path(sys.argv[1])
home = folder / "home"
redaction_key(home)
store = Store.open(StoreSettings(path=home / "store.duckdb"), HOLDOUT, KAFKA)
log = Log(store)
events = [*episode("e0"), *episode("e1", TASKS[Split.TRAIN][1], "human")]
events += episode("e2", TASKS[Split.TRAIN][2], "policy", success=False)
log.publish(*events)
published = [(KAFKA.events_topic, event.to_json()) for event in events]
published += [(pending.message.topic, pending.message.value) for pending in store.pending(100)]
results = (branches("e0", TASK), recovery("e2", TASKS[Split.TRAIN][2], 0))
published += [(KAFKA.transitions_topic, each.to_json()) for each in results]
lines = [json.dumps({"topic": topic, "value": value.decode()}) + "\n" for topic, value in published]
(folder / "records.jsonl").write_text("".join(lines))
log.branched("e0", TASK)
log.recovered("e2", TASKS[Split.TRAIN][2], 0)
spans = AssemblyState.open(AssemblySettings(path=home / "assembly.sqlite"), 0.0)
spans.add(game()[:-1], now=0.0)

practised = attempt(1, "go", score=1.0, task_id=TASK, log_probabilities=((-0.5,),))
learned = [replace(trajectory(0, TASK), principals=("e0",)), practised]
snapshot = write_snapshot(learned, HOLDOUT, home / "snapshots", store.sequence, {"ratchet.events/0": 9})
registry, champion = Registry(home), "base"
gate = GateSettings(min_tasks=40)
for number, weights in enumerate(("first", "second"), start=1):
    adapter = entered(home, snapshot, None if champion == "base" else champion, weights)
    registry.enter(adapter, State.TRAINED, "learner", "cycle")
    registry.enter(adapter, State.EVALUATING, "learner", "cycle")
    reserve(registry.audit, adapter, champion, "learner", gate)
    begun = {"trial": f"{adapter}-1", "adapter": adapter, "generation": 1, "promotions": number - 1}
    lists = {"selection": 40, "confirmation": 0, "fresh": 40, "rotate_after": 20}
    TaskUses(home).begin(TrialBegun(**begun, **lists, at=datetime.now(UTC)))
    known = evidence(tasks(40))
    known.candidate = Competitor(adapter, registry.name(adapter, "learner", "gate"))
    known.pairs += pairs([n < 10 * number for n in range(40)], [n < 10 * number + 10 for n in range(40)])
    known.results.append(GateResult(gate="improvement", verdict=Verdict.PROMOTE, reason="better", figures={"wins": 10}))
    own = home / "adapters" / adapter
    GateReport.of(known, Verdict.PROMOTE, "better", gate).write(own)
    registry.enter(adapter, State.APPROVED, "learner", "better")
    told = {"cycle": number, "verdict": Verdict.PROMOTE, "reason": "better", "tasks": 40, "seconds": 1.0}
    if find_spec("daemon.registry.evidence"):
        from daemon.registry.evidence import fingerprints

        told["evidence"] = fingerprints(home, (own / "gate.json", own / "report.md", home / "task_uses.jsonl"))
    registry.record_cycle(
        CycleReport(adapter=adapter, champion=champion, gates=tuple(known.results), **told), "learner"
    )
    registry.promote(adapter, "learner", "better")
    champion = adapter
registry.set_anchor(registry.refs().previous, "anna", "an older one")
registry.roll_back(registry.refs().previous, "anna", "complaints")
registry.mark_for_retraining([Mark(champion, "0197c2aa-0000-7000-8000-000000000000", "consent was revoked")], "learner")
for left in (home / "training").iterdir():
    left.unlink()
(home / "training").rmdir()
os._exit(0)
