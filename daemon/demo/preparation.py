"""The settings of a demo, and the tasks that it plays."""

import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from daemon.config import Settings
from daemon.demo.plan import DemoPlan
from daemon.demo.scenario import Scenario
from daemon.learning.loop import Loop
from daemon.registry.approval import Approval
from evaluation.settings import GateSettings
from learners.settings import LoraSettings
from ratchet_client.events import Task
from ratchet_client.ids import uuid7
from streams.runtime.processes import free_port
from streams.trust.holdout import Split


def embedded(given: Settings, plan: DemoPlan, scenario: Scenario, home: Path) -> Settings:
    """The settings of one demo: a home and ports of its own, and topics of its own on a cluster that it shares."""
    run = uuid7()
    kafka = given.kafka
    # Nobody waits here to be asked about every promotion.
    promotion = given.settled().promotion.model_copy(update={"approval": Approval.ON_HOLD})
    if kafka.bootstrap:
        topics = {name: f"{getattr(kafka, name)}.{run}" for name in type(kafka).model_fields if name.endswith("_topic")}
        kafka = kafka.model_copy(update={**topics, "group_prefix": f"{kafka.group_prefix}-{run}"})
    return given.model_copy(
        update={
            "home": home,
            "seed": plan.seed,
            "domain": scenario.domain,
            "kafka": kafka.model_copy(update={"embedded_port": 0}),
            "store": given.store.model_copy(update={"path": home / "store.duckdb", "port": free_port()}),
            "engine": given.engine.model_copy(update={"port": free_port()}),
            # The agent has asked for all that it will when it says how a ticket went.
            "assembly": given.assembly.model_copy(
                update={"path": home / "assembly.sqlite", "port": free_port(), "settle_s": 2.0}
            ),
            "promotion": promotion,
            "serving": given.serving.model_copy(update={"home": home, "port": free_port(), "promotion": promotion}),
            "gate": given.gate.model_copy(update=_gate(given.gate, plan)),
            "branching": scenario.branching(given.branching),
            "learner": given.learner.model_copy(
                update={
                    # Adapters on the upper half of the layers alone train 1.5 times as fast.
                    "lora": LoraSettings(layers=15),
                    "learning_rate": plan.learning_rate,
                    "practice": plan.practice,
                }
            ),
        }
    ).settled()


def _gate(given: GateSettings, plan: DemoPlan) -> dict[str, object]:
    no_forgetting = given.no_forgetting
    few = no_forgetting.model_copy(update={"min_tasks": min(no_forgetting.min_tasks, plan.held_out // 2)})
    return {
        "min_tasks": min(given.min_tasks, plan.held_out),
        "no_forgetting": few,
        "spending": "constant",
        "alpha": plan.alpha,
    }


def bounded(loop: Loop, plan: DemoPlan, played: Sequence[Task]) -> Loop:
    """The loop with as many tasks for gates as the plan says, whose practice is of `played`."""
    return replace(
        loop,
        tasks=tuple(played),
        held_out=loop.held_out[: plan.held_out],
        out_of_domain=loop.out_of_domain[: plan.out_of_domain],
        # A proof of no forgetting takes fewer tasks than one of improvement.
        confirmation=loop.confirmation[: plan.held_out // 2],
        generated=("", ""),
    )


def train_tasks(loop: Loop, plan: DemoPlan) -> tuple[Sequence[Task], Sequence[Task]]:
    """The tasks of the train split in an order that the seed decides: those to play, and those kept unseen."""
    tasks = [task for task in loop.tasks if loop.settings.holdout.split(task.task_id) is Split.TRAIN]
    random.Random(plan.seed).shuffle(tasks)
    return tasks[plan.unseen :], tasks[: plan.unseen]
