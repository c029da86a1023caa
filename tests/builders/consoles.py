"""A home as an operator finds it: an adapter that serves, one that waits for a person, and the trial that it won."""

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from daemon.learning.loop import ACTOR
from daemon.registry.learner_status import LEARNER_FILE, LearnerPhase, LearnerStatus
from daemon.registry.lifecycle import State
from daemon.registry.registry import Registry
from daemon.registry.schemas import CycleReport
from evaluation.gates.gate import Competitor
from evaluation.gates.verdict import GateResult, Verdict
from evaluation.report import GateReport
from evaluation.rollout_log import Entry, Key, RolloutLog, rollouts_path
from evaluation.rollouts import Exclusion, Pair, Rollout
from evaluation.settings import GateSettings
from learners.snapshots import write_snapshot
from ratchet_client.events import Actor, OutcomeEvent, StepEvent, Task
from ratchet_client.messages import Message, assistant, call, tool_result, user
from streams.trust.holdout import HoldoutSettings
from tests.builders.episodes import TASK, episode
from tests.builders.stored import Log
from tests.builders.trained import entered, trajectory
from tests.builders.trials import evidence

# What agents, customers and tools may write: markup, an order to terminals, a turned reading direction, an address.
HOSTILE = '<script>alert(1)</script><img src="https://evil.example/x"> \x1b[2J \u202e {{ 7*7 }} "quoted" \ud800'
LONG = "0123456789" * 110_000
"""More than 1 MiB."""

NOTHING_HELD_OUT = HoldoutSettings(selection=0.0, confirmation=0.0)
OPENING = (Message(role="system", content="You answer tickets."), user("Where is my order A-17?"))


@dataclass(frozen=True, slots=True)
class Scene:
    """The adapters of the home: what serves, and what waits."""

    champion: str
    held: str


def desk(name: str) -> Task:
    return Task(environment="desk", task_id=f"desk/dev/{name}")


def rollout(task: Task, success: bool, *said: Message) -> Rollout:
    actions = tuple(message for message in said if message.role == "assistant")
    return Rollout(task.task_id, success, float(success), len(actions), 0, actions, (*OPENING, *said))


def adapters_without_weights(home: Path) -> tuple[str, str]:
    """Two adapters with data of ann and of bob, the second trained from the first. No engine could load them."""
    digests: list[str] = []
    for number, name in enumerate(("ann", "bob")):
        trajectories = [replace(trajectory(number), principals=(name,))]
        snapshot = write_snapshot(trajectories, NOTHING_HELD_OUT, home / "snapshots", 7 + number, {"events/0": 9}, 3)
        digests.append(entered(home, snapshot, digests[0] if digests else None))
    return digests[0], digests[1]


def scene(registry: Registry, champion: str, held: str) -> Scene:
    """Make the home of two adapters that were never judged. Nothing of it needs a store."""
    for state in (State.TRAINED, State.EVALUATING, State.APPROVED):
        registry.enter(champion, state, ACTOR, "It was significantly better.")
    registry.promote(champion, ACTOR, "It was significantly better: 23 won, none lost.")
    for state in (State.TRAINED, State.EVALUATING, State.HELD):
        registry.enter(held, state, ACTOR, "It repeats one action more often than the champion does.")
    _trial(registry, champion, held)
    now = datetime.now(UTC)
    status = LearnerStatus(phase=LearnerPhase.GATE, since=now, beat_at=now, gate="improvement", done=48, total=320)
    (registry.home / LEARNER_FILE).write_text(status.model_dump_json())
    return Scene(champion, held)


def _answered(event: StepEvent | OutcomeEvent, served: str) -> StepEvent | OutcomeEvent:
    if isinstance(event, OutcomeEvent):
        return event
    return event.model_copy(update={"actor": Actor(kind="policy", adapter=served)})


def _trial(registry: Registry, champion: str, held: str) -> None:
    looked = assistant("Let me look.", call("find_order", '{"id": "A-17"}', "call_1"))
    found = tool_result('{"order": "A-17", "left": "yesterday", "carrier": "post"}', "call_1")
    lost, won, odd, broken = desk("lost"), desk("won"), desk(f"odd {HOSTILE[:40]}"), desk("broken")
    sides: list[tuple[str, Task, Rollout | Exclusion]] = [
        (champion, lost, rollout(lost, True, looked, found, assistant("It left yesterday, by post."))),
        (held, lost, rollout(lost, False, assistant("I do not know.", reasoning="Who am I?"))),
        (champion, won, rollout(won, False, assistant("Perhaps it is on its way."))),
        (held, won, rollout(won, True, looked, found, assistant("Your order A-17 left yesterday, by post."))),
        (champion, odd, rollout(odd, True, assistant("Done."))),
        (held, odd, rollout(odd, True, looked, tool_result(LONG, "call_1"), assistant(HOSTILE.replace("\ud800", "")))),
        (champion, broken, rollout(broken, True, assistant("Done."))),
        (held, broken, Exclusion(broken, "the sandbox died")),
    ]
    with RolloutLog(rollouts_path(registry.home, held, 1)) as record:
        for adapter, task, outcome in sides:
            record.append(Entry.of(Key("improvement", adapter, task, 0, "c"), adapter, outcome))
    serving, candidate = Competitor(champion, f"ratchet-3-{champion[:12]}"), Competitor(held, f"ratchet-7-{held[:12]}")
    made = replace(evidence(), champion=serving, candidate=candidate)
    played = {(adapter, task.task_id): outcome for adapter, task, outcome in sides}
    for task in (lost, won, odd):
        one, other = played[champion, task.task_id], played[held, task.task_id]
        assert isinstance(one, Rollout)
        assert isinstance(other, Rollout)
        made.pairs.append(Pair(task, one, other))
    figures: dict[str, bool | int | float | str | None] = {"wins": 1, "losses": 1, "p_better": 0.0123456}
    results = (
        GateResult(gate="improvement", verdict=Verdict.PROMOTE, reason="1 won, 1 lost.", figures=figures),
        GateResult(gate="sentinels", verdict=Verdict.HOLD, reason="It repeats one action more often."),
    )
    made.results.extend(results)
    reason = "It repeats one action more often than the champion does."
    GateReport.of(made, Verdict.HOLD, reason, GateSettings()).write(registry.adapter_folder(held))
    registry.record_cycle(
        CycleReport(
            cycle=2,
            adapter=held,
            champion=champion,
            verdict=Verdict.HOLD,
            reason=reason,
            champion_success=0.625,
            candidate_success=0.71,
            tasks=3,
            gates=results,
            seconds=1840,
        ),
        ACTOR,
    )


def episodes(log: Log) -> None:
    """Episodes of every kind that the pages tell apart, one with branches, one of hostile and long texts."""
    for number in range(9):
        served = f"ratchet-{3 if number < 5 else 9}-{'ab'[number > 4] * 12}"
        events = episode(f"ticket-{number}", actor="policy", success=number % 3 > 0, action=f"answer {number}:")
        log.publish(*(_answered(event, served) for event in events))
    log.publish(*episode("sound", steps=3))
    log.branched("sound", TASK)
    log.publish(*episode("lost", actor="policy", success=False, action="fall"))
    log.recovered("lost", TASK, 1)
    log.publish(*episode("broken", action="run")[1:])
    log.publish(episode("open", action="sit")[0])
    first, *_ = episode("hostile", steps=1)
    assert isinstance(first, StepEvent)
    said = HOSTILE.replace("\ud800", "")
    odd = first.model_copy(
        update={
            "episode_id": f"hostile {said}",
            "action": assistant(said),
            "observation": (user(LONG), user(said)),
            "done": True,
        }
    )
    verdict = OutcomeEvent(event_id="hostile-end", episode_id=odd.episode_id, verifier=said, success=True, score=1.0)
    log.publish(odd, verdict)
