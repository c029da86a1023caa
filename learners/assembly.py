"""Trajectories from the rows of the store. Pure; `learners.snapshots` calls it."""

from collections import defaultdict
from collections.abc import Mapping, Sequence, Set
from itertools import chain
from typing import Any

from learners.stored_rows import Row, StoredRows
from learners.trajectories import INSTRUCTED, LESSON, RECOVERY, REFLECTED, Branch, Rationale, Trajectory
from ratchet_client.events import Advice
from ratchet_client.ids import content_id
from ratchet_client.messages import MESSAGE, MESSAGES, TOOLS, Message, Messages, as_json
from streams.branch_events import STEPS, RecordedStep, keeps_reasoning, tools_at, with_changes
from streams.trust.holdout import HoldoutSettings, Split


def assemble(rows: StoredRows, holdout: HoldoutSettings) -> list[Trajectory]:
    """Trajectories from stored rows; steps of tasks that are held out are left behind."""
    found: dict[str, list[Branch]] = defaultdict(list)
    for row in rows.branches:
        found[row["episode_id"]].append(stored_branch(row))
    return (
        merged(of_split(rows.steps, holdout), found, rows.older)
        + _recoveries(rows, holdout)
        + _practised(rows, holdout)
    )


def merged(
    episodes: Mapping[str, Sequence[Row]],
    branches: Mapping[str, Sequence[Branch]],
    older: Set[str] = frozenset(),
) -> list[Trajectory]:
    """A trajectory for each way that episodes went: those that went the same way are one, with the first one's id.

    It is older if one of these is among `older`.
    """
    recorded = {episode_id: _recorded(steps) for episode_id, steps in episodes.items()}
    alike: dict[str, list[str]] = defaultdict(list)
    for episode_id, steps in episodes.items():
        opening = MESSAGES.validate_json(steps[0]["messages"])
        alike[_identity(steps[0]["task_id"], opening, recorded[episode_id])].append(episode_id)
    trajectories = []
    for same in alike.values():
        steps = episodes[same[0]]
        first = steps[0]
        trajectories.append(
            Trajectory(
                episode_id=same[0],
                task_id=first["task_id"],
                opening=MESSAGES.validate_json(first["messages"]),
                steps=recorded[same[0]],
                branches=tuple(branches.get(same[0], ())),
                actor_kind=first["actor_kind"],
                adapter=first["adapter"],
                principals=tuple(sorted({step["principal"] for episode in same for step in episodes[episode]})),
                older=not older.isdisjoint(same),
            )
        )
    return trajectories


def _recoveries(rows: StoredRows, holdout: HoldoutSettings) -> list[Trajectory]:
    """A trajectory for each recovery: what the agent did wrong, and how to resume from there."""
    episodes = of_split(rows.recovered_steps, holdout)
    return [
        Trajectory(
            episode_id=recovery["recovery_id"],
            task_id=steps[0]["task_id"],
            opening=MESSAGES.validate_json(steps[0]["messages"]),
            steps=_continued(_recorded(steps), recovery["left_at"], STEPS.validate_json(recovery["steps"])),
            actor_kind=RECOVERY,
            adapter=recovery["adapter"],
            principals=tuple(sorted({step["principal"] for step in steps})),
            learn_from=recovery["left_at"],
            older=recovery["recovery_id"] in rows.older,
        )
        for recovery in rows.recoveries
        if (steps := episodes.get(recovery["episode_id"]))
    ]


def _practised(rows: StoredRows, holdout: HoldoutSettings) -> list[Trajectory]:
    """A trajectory for each practice episode, also where several went the same way: each is a sample of its group.

    They are nobody's data, so no principal is named.
    """
    return [
        Trajectory(
            episode_id=episode_id,
            task_id=steps[0]["task_id"],
            opening=MESSAGES.validate_json(steps[0]["messages"]),
            steps=_recorded(steps),
            adapter=steps[0]["adapter"],
            **_advised(steps[0]),
            origin="practice",
            success=steps[0]["success"],
            score=steps[0]["score"],
            log_probabilities=tuple(tuple(step["log_probabilities"] or ()) for step in steps),
            older=episode_id in rows.older,
        )
        for episode_id, steps in of_split(rows.practised_steps, holdout).items()
    ]


def _advised(first: Row) -> dict[str, Any]:
    """Who acted, and the lesson that told it to; of a reflection, which is about another attempt, only that it was."""
    if first["advice"] is None:
        return {"actor_kind": first["actor_kind"]}
    advice = Advice.model_validate_json(first["advice"])
    if advice.kind == "reflection":
        return {"actor_kind": REFLECTED}
    return {"actor_kind": INSTRUCTED, "rationales": (Rationale(advice.step, advice.text, LESSON),)}


def of_split(steps: Sequence[Row], holdout: HoldoutSettings, split: Split = Split.TRAIN) -> dict[str, list[Row]]:
    """The steps of tasks of one split, by episode."""
    episodes: dict[str, list[Row]] = defaultdict(list)
    for row in steps:
        if holdout.split(row["task_id"]) is split:
            episodes[row["episode_id"]].append(row)
    return episodes


def _recorded(steps: Sequence[Row]) -> tuple[RecordedStep, ...]:
    offered = [() if row.get("tools") is None else TOOLS.validate_json(row["tools"]) for row in steps]
    place = len(MESSAGES.validate_json(steps[0]["messages"])) if steps else 0
    recorded = []
    for number, (row, tools) in enumerate(zip(steps, with_changes(offered), strict=True)):
        action, observation = MESSAGE.validate_json(row["action"]), MESSAGES.validate_json(row["observation"])
        kept = False
        if action.reasoning_content is not None and number + 1 < len(steps):
            kept = keeps_reasoning(action, MESSAGES.validate_json(steps[number + 1]["messages"])[place:])
        recorded.append(RecordedStep(action=action, observation=observation, tools=tools, reasoning_kept=kept))
        place += 1 + len(observation)
    return tuple(recorded)


def _continued(
    recorded: tuple[RecordedStep, ...], left_at: int, steps: tuple[RecordedStep, ...]
) -> tuple[RecordedStep, ...]:
    """The first `left_at` recorded steps and what was done instead of the rest, from the same state: with its tools."""
    before, offered = recorded[:left_at], tools_at(recorded, left_at)
    if steps and steps[0].tools is None and tools_at(before, left_at) != offered:
        steps = (steps[0].model_copy(update={"tools": offered}), *steps[1:])
    return before + steps


def _identity(task_id: str, opening: Messages, steps: Sequence[RecordedStep]) -> str:
    """The same for episodes that went the same way: the ids of calls, which differ each time, say nothing."""
    ids: dict[str | None, str] = {}

    def numbered(message: Message) -> Message:
        if message.tool_call_id is None and not message.calls:
            return message
        calls = tuple(call.model_copy(update={"id": ids.setdefault(call.id, str(len(ids)))}) for call in message.calls)
        answered = ids.get(message.tool_call_id)
        return message.model_copy(update={"tool_calls": calls or None, "tool_call_id": answered})

    said = chain(opening, *((step.action, *step.observation) for step in steps))
    offered = (TOOLS.dump_json(step.tools).decode() for step in steps if step.tools is not None)
    return content_id(task_id, as_json(tuple(map(numbered, said))), *offered)


def stored_branch(row: Row) -> Branch:
    """A branch from a row of the store's query `BRANCHES`, or of a snapshot."""
    action, observation = MESSAGE.validate_json(row["action"]), MESSAGES.validate_json(row["observation"])
    score, done = row.get("score"), bool(row.get("done"))
    return Branch(row["step"], action, observation, row["source"], row["fidelity"], score, done)
