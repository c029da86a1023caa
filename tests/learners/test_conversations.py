"""Any conversation goes from JSON through the store into a training set, and comes back as it was.

Random valid conversations and results of branching pass decoding, admission, redaction (which finds nothing), the
store's file, trust, the branch request, the snapshot's files, the export and the view as of a sequence. Covered are:
every role; contents as text, null, and parts; parallel tool calls with ids, names and arguments that are JSON or not;
results in any order, several messages in a row; reasoning; tools that change between steps; and unknown fields of
messages, parts, calls and functions, with any JSON in them.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from learners.assembly import assemble
from learners.snapshots import build_snapshot, read_trajectories, write_snapshot
from learners.stored_rows import StoredRows
from learners.trajectories import Branch, Trajectory
from ratchet_client.events import OutcomeEvent, StepEvent, Task
from ratchet_client.ids import content_id
from ratchet_client.messages import MESSAGE, MESSAGES, TOOLS, Message, Messages, Tools
from streams.branch_events import STEPS, BranchRequest, BranchResult, RecordedStep, RecoveryResult
from streams.intake.admission import Admission, AdmissionSettings
from streams.intake.pipeline import Intake
from streams.kafka.records import Received
from streams.redaction.redactor import Redactor
from streams.redaction.settings import RedactionSettings
from streams.store.api import build_api
from streams.store.client import StoreClient
from streams.store.decoded import Decoded
from streams.store.export import export_transitions, look_back, newest
from streams.store.settings import StoreSettings
from streams.store.writer import Store
from streams.trust.holdout import HoldoutSettings
from streams.trust.settings import QuotaSettings
from tests.builders.conversations import branch_results, conversations, recovery_results
from tests.builders.episodes import KAFKA
from tests.served import served

ALL_TRAIN = HoldoutSettings(selection=0.0, confirmation=0.0)
Turns = Sequence[tuple[Message, Messages, Tools]]
# `--hypothesis-seed` is for the night; each change tries the same ones.
EXAMPLES = [pytest.param(60, True), pytest.param(1000, False, marks=pytest.mark.nightly)]


def opened(path: Path) -> Store:
    return Store.open(
        StoreSettings(path=path), ALL_TRAIN, KAFKA, QuotaSettings(per_principal=10**9, near_duplicates=10**9)
    )


@dataclass
class Passage:
    """Sends conversations through everything up to the store's file, and knows what must come out at the end."""

    store: Store
    home: Path
    intake: Intake = field(
        default_factory=lambda: Intake(Admission(AdmissionSettings()), Redactor(RedactionSettings(), b"k"))
    )
    offsets: dict[str, int] = field(default_factory=lambda: {KAFKA.events_topic: 0, KAFKA.transitions_topic: 0})
    number: int = 0
    trajectories: list[Trajectory] = field(default_factory=list)
    rows: list[tuple[object, ...]] = field(default_factory=list)
    moments: list[tuple[int, int]] = field(default_factory=list)

    def read(self, topic: str, value: bytes) -> Decoded:
        received = Received(topic, 0, self.offsets[topic], b"key", value)
        return self.intake.event(received) if topic == KAFKA.events_topic else self.intake.result(received)

    def decode(
        self, topic: str, contents: Sequence[StepEvent | OutcomeEvent | BranchResult | RecoveryResult]
    ) -> list[Decoded]:
        """What comes out of the pipeline is what went in, and nothing of it was replaced or flagged."""
        decoded = [self.read(topic, content.to_json()) for content in contents]
        assume(not any(each.redactions or each.flag for each in decoded))
        assert [each.content for each in decoded] == list(contents)
        return decoded

    def take(self, topic: str, decoded: Sequence[Decoded]) -> None:
        for each in decoded:
            received = each.received._replace(offset=self.offsets[topic])
            self.offsets[topic] += 1
            self.store.append([replace(each, received=received)])

    def asked(self) -> BranchRequest:
        """The request that waits last in the outbox."""
        (pending,) = self.store.pending(10)
        self.store.published(pending.sequence)
        request = BranchRequest.model_validate_json(pending.message.value or b"")
        assert BranchRequest.model_validate_json(request.to_json()) == request
        return request

    def stored(self, episode: str) -> list[dict[str, Any]]:
        sql = "SELECT * FROM transitions WHERE episode_id = $episode ORDER BY sequence"
        return list(self.store.query(sql, {"episode": episode}).to_pylist())


def parsed(row: dict[str, Any]) -> tuple[object, ...]:
    return (
        row["episode_id"],
        row["step"],
        row["origin"],
        None if row["messages"] is None else MESSAGES.validate_json(row["messages"]),
        MESSAGE.validate_json(row["action"]),
        MESSAGES.validate_json(row["observation"]),
        () if row["tools"] is None else TOOLS.validate_json(row["tools"]),
    )


@pytest.mark.nightly
@pytest.mark.parametrize(("examples", "same"), EXAMPLES)
async def test_conversations_come_back_as_they_were(tmp_path: Path, examples: int, same: bool) -> None:
    path = tmp_path / "store.duckdb"
    passage = Passage(opened(path), tmp_path)

    @settings(
        max_examples=examples, derandomize=same, deadline=None, database=None, suppress_health_check=list(HealthCheck)
    )
    @given(conversation=conversations(), success=st.booleans(), spoken=st.booleans(), data=st.data())
    def send(conversation: tuple[Messages, Turns], success: bool, spoken: bool, data: st.DataObject) -> None:
        one_example(passage, conversation, success, spoken, data)

    send()
    passage.store.close()
    store = opened(path)  # by now all of it has been in the file
    with served(build_api(store), lifespan="off") as url:
        async with StoreClient(url) as client:
            snapshot = await build_snapshot(client, ALL_TRAIN, tmp_path / "snapshots", most_per_principal=100_000)
            found = {one.episode_id: one for one in read_trajectories(snapshot.folder)}
            assert found == {one.episode_id: one for one in passage.trajectories}
            moment = await look_back(client, None, None)
            await export_transitions(client, moment, tmp_path / "all.parquet", lambda *_: None)
            assert list(map(parsed, pq.read_table(tmp_path / "all.parquet").to_pylist())) == passage.rows
            for sequence, count in passage.moments[:: max(1, len(passage.moments) // 10)]:
                then = await newest(client, await look_back(client, sequence, None), 10**9)
                assert list(map(parsed, then.to_pylist())) == passage.rows[:count]
    store.close()
    assert len(passage.trajectories) > examples // 4


def one_example(
    passage: Passage, conversation: tuple[Messages, Turns], success: bool, spoken: bool, data: st.DataObject
) -> None:
    """An episode, judged a success or a failure, and what came of branching it or of resuming from it."""
    opening, turns = conversation
    passage.number += 1
    episode, task = f"e{passage.number}", Task(environment="desk", task_id=f"task-{passage.number}")
    events: list[StepEvent | OutcomeEvent] = []
    messages = opening
    for number, (action, observation, tools) in enumerate(turns):
        events.append(
            StepEvent(
                **{"episode_id": episode, "step": number, "agent": "desk", "principal": "p", "task": task},
                **{"tools": tools, "messages": messages, "action": action, "observation": observation},
                **{"done": number == len(turns) - 1, "actor": {"kind": "policy", "adapter": "a-1"}},
            )
        )
        messages = (*messages, action.spoken() if spoken else action, *observation)
    events.append(OutcomeEvent(episode_id=episode, verifier="v", success=success, score=1.0))
    # What hypothesis draws, and what it gives up, must come before anything is stored.
    verdict = "trusted" if success else "failed"
    known = {"request_id": content_id("branch_request", verdict, episode), "episode_id": episode, "task": task}
    step = data.draw(st.integers(0, len(turns) - 1))
    branched, recovered = branch_results({**known, "step": step}), recovery_results(known, len(turns))
    result: BranchResult | RecoveryResult = data.draw(branched) if success else data.draw(recovered)
    decoded = passage.decode(KAFKA.events_topic, events), passage.decode(KAFKA.transitions_topic, [result])

    passage.take(KAFKA.events_topic, decoded[0])
    request = passage.asked()
    assert (request.event_id, request.verdict, request.opening) == (result.request_id, verdict, opening)
    assert [(step.action, step.observation) for step in request.steps] == [turn[:2] for turn in turns]
    assert [request.tools(number) for number in range(len(turns))] == [turn[2] for turn in turns]

    passage.take(KAFKA.transitions_topic, decoded[1])
    trajectory = Trajectory(
        episode_id=episode,
        task_id=task.task_id,
        opening=opening,
        steps=request.steps,
        actor_kind="policy",
        adapter="a-1",
        principals=("p",),
    )
    if isinstance(result, BranchResult):
        branches = [
            Branch(step, each.action, each.observation, each.source, result.fidelity, each.score, each.done)
            for each in result.alternatives
        ]
        expected = [trajectory_with(trajectory, branches)]
        died = "SELECT action FROM fatalities WHERE episode_id = $episode ORDER BY sequence"
        dead = passage.store.query(died, {"episode": episode})["action"].to_pylist()
        assert [MESSAGE.validate_json(action) for action in dead] == [each.action for each in result.failures]
    else:
        expected = [resumed(trajectory, each.left_at, each.steps) for each in result.recoveries]

    rows = passage.stored(episode)
    sent = [event for event in events if isinstance(event, StepEvent)]
    assert [parsed(row) for row in rows][: len(sent)] == [
        (episode, each.step, "production", each.messages, each.action, each.observation, each.tools) for each in sent
    ]
    passage.rows += map(parsed, rows)
    passage.moments.append((passage.store.sequence, len(passage.rows)))
    # Here for the shortest counterexample; at the end all of them are read from a snapshot of the store.
    again = written(passage, rows, episode, success)
    assert again == {one.episode_id: one for one in expected}
    passage.trajectories += again.values()


def trajectory_with(trajectory: Trajectory, branches: Sequence[Branch]) -> Trajectory:
    """The trajectory with branches in the order of their ids in the store."""

    def identity(branch: Branch) -> str:
        text = branch.action.text
        plain = branch.action == Message(role="assistant", content=text)
        said = (text,) if plain else ("message", branch.action.to_json().decode())
        return content_id("branch", trajectory.episode_id, str(branch.step), *said)

    return replace(trajectory, branches=tuple(sorted(branches, key=identity)))


def resumed(trajectory: Trajectory, left_at: int, steps: tuple[RecordedStep, ...]) -> Trajectory:
    """What is learned from a recovery: the steps before it, and its own, which begin with the tools of their state."""
    written = STEPS.dump_json(steps, exclude_none=True).decode()
    before, offered = trajectory.steps[:left_at], trajectory.tools(left_at)
    began = Trajectory(episode_id="", task_id="", opening=(), steps=before)
    if steps[0].tools is None and (began.tools(left_at) if before else ()) != offered:
        steps = (steps[0].model_copy(update={"tools": offered}), *steps[1:])
    return Trajectory(
        episode_id=content_id("recovery", trajectory.episode_id, str(left_at), written),
        task_id=trajectory.task_id,
        opening=trajectory.opening,
        steps=before + steps,
        actor_kind="recovery",
        adapter="base",
        principals=("p",),
        learn_from=left_at,
    )


def written(passage: Passage, rows: Sequence[dict[str, Any]], episode: str, success: bool) -> dict[str, Trajectory]:
    """The trajectories of those rows, out of the files of a snapshot of their own."""
    recoveries = "SELECT DISTINCT ON (recovery_id) * FROM recoveries WHERE episode_id = $episode"
    steps = [row for row in rows if row["origin"] == "production"]
    branches = sorted((row for row in rows if row["origin"] == "branch"), key=lambda row: str(row["transition_id"]))
    kept = StoredRows(
        as_of=1,
        retracted_as_of=0,
        offsets={},
        steps=steps if success else [],
        branches=branches,
        recovered_steps=[] if success else steps,
        recoveries=passage.store.query(recoveries, {"episode": episode}).to_pylist(),
    )
    snapshot = write_snapshot(assemble(kept, ALL_TRAIN), ALL_TRAIN, passage.home / "single", 1, {})
    return {one.episode_id: one for one in read_trajectories(snapshot.folder)}
