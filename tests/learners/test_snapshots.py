"""Nothing that is held out ever reaches a snapshot, and a snapshot never changes."""

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from learners.assembly import assemble
from learners.canaries import PRINCIPAL, draw_canaries
from learners.held_out_states import read_held_out_states
from learners.snapshots import (
    Snapshot,
    SnapshotManifest,
    build_snapshot,
    read_principals,
    read_trajectories,
    write_snapshot,
)
from learners.stored_rows import StoredRows
from ratchet_client.events import RetractionEvent, StepEvent
from streams.errors import TrainingError
from streams.store.client import StoreClient
from streams.trust.holdout import HoldoutSettings, Split
from tests.builders.episodes import HOLDOUT, KAFKA, TASKS, episode
from tests.builders.stored import Log, ServedStore
from tests.builders.trained import trajectory


async def build(served: ServedStore, home: Path, as_of: int | None = None) -> Snapshot:
    async with StoreClient(served.url) as client:
        return await build_snapshot(client, HOLDOUT, home, as_of)


def names(snapshot: Snapshot) -> list[str]:
    return [one.episode_id for one in read_trajectories(snapshot.folder)]


def everything_in(snapshot: Snapshot) -> str:
    tables: Sequence[pa.Table] = [pq.read_table(path) for path in snapshot.folder.glob("*.parquet")]
    return "".join(str(table.to_pylist()) for table in tables)


async def test_only_episodes_of_the_train_split_are_in_a_snapshot(served_store: ServedStore, tmp_path: Path) -> None:
    log = Log(served_store.store)
    for split, tasks in TASKS.items():
        for number, task_id in enumerate(tasks[:6]):
            log.publish(*episode(f"{split}-{number}", task_id))
            log.branched(f"{split}-{number}", task_id)
    snapshot = await build(served_store, tmp_path / "snapshots")
    assert sorted(names(snapshot)) == [f"train-{number}" for number in range(6)]
    assert (snapshot.manifest.steps, snapshot.manifest.branches) == (12, 6)
    for held_out in TASKS[Split.SELECTION] + TASKS[Split.CONFIRMATION]:
        assert f"'{held_out}'" not in everything_in(snapshot)


async def test_tasks_held_out_by_the_builder_are_left_out_whatever_splits_the_store_has(
    served_store: ServedStore, tmp_path: Path
) -> None:
    log, tasks = Log(served_store.store), TASKS[Split.TRAIN]
    for task_id in tasks:
        log.publish(*episode(task_id, task_id))
        log.branched(task_id, task_id)
    assert served_store.store.query("SELECT DISTINCT split FROM trusted").column(0).to_pylist() == ["train"]
    other = HoldoutSettings(key="another", selection=0.5, confirmation=0.1)
    async with StoreClient(served_store.url) as client:
        snapshot = await build_snapshot(client, other, tmp_path / "snapshots")
    allowed = [task_id for task_id in tasks if other.split(task_id) is Split.TRAIN]
    assert 0 < len(allowed) < len(tasks)
    assert sorted(names(snapshot)) == sorted(allowed)
    assert snapshot.manifest.branches == len(allowed)


@given(
    key=st.text("abc", min_size=1, max_size=4),
    shares=st.tuples(st.floats(0, 0.5), st.floats(0, 0.5)),
    seeds=st.lists(st.integers(0, 10_000), min_size=1, max_size=20),
)
def test_for_any_settings_no_held_out_task_is_in_a_snapshot(
    key: str, shares: tuple[float, float], seeds: list[int]
) -> None:
    holdout = HoldoutSettings(key=key, selection=shares[0], confirmation=shares[1])
    rows = [
        {
            "episode_id": f"{seed}",
            "task_id": f"twc/train/{seed}",
            "messages": "[]",
            "action": '{"role":"assistant","content":"go"}',
            "observation": "[]",
            "actor_kind": "expert",
            "adapter": None,
            "principal": "ann",
        }
        for seed in seeds
    ]
    continued = [
        {"recovery_id": f"r{seed}", "episode_id": f"{seed}", "left_at": 0, "steps": "[]", "adapter": None}
        for seed in seeds
    ]
    stored = StoredRows(0, 0, {}, steps=rows, branches=[], recovered_steps=rows, recoveries=continued)
    kept = {one.task_id for one in assemble(stored, holdout)}
    assert kept == {row["task_id"] for row in rows if holdout.split(str(row["task_id"])) is Split.TRAIN}


async def test_a_recovery_is_learned_from_the_state_where_it_left_the_failed_trajectory(
    served_store: ServedStore, tmp_path: Path
) -> None:
    log, task_id = Log(served_store.store), TASKS[Split.TRAIN][0]
    log.publish(*episode("failed", task_id, "policy", success=False))
    log.recovered("failed", task_id, left_at=1)
    log.recovered("failed", task_id, left_at=1)
    snapshot = await build(served_store, tmp_path / "snapshots")
    (recovery,) = read_trajectories(snapshot.folder)
    assert [step.action.text for step in recovery.steps] == ["go 0", "back", "forward"]
    assert (recovery.learn_from, recovery.actor_kind, recovery.principals) == (1, "recovery", ("failed",))
    assert snapshot.manifest.episodes == {"recovery": 1}


async def test_recoveries_of_revoked_principals_and_of_held_out_tasks_are_left_out(
    served_store: ServedStore, tmp_path: Path
) -> None:
    log = Log(served_store.store)
    for name, task_id in (("gone", TASKS[Split.TRAIN][0]), ("held-out", TASKS[Split.SELECTION][0])):
        log.publish(*episode(name, task_id, "policy", success=False))
        log.recovered(name, task_id, left_at=1)
    log.publish(RetractionEvent(principal="gone", reason="asked"))
    with pytest.raises(TrainingError, match="nothing to learn from"):
        await build(served_store, tmp_path / "snapshots")


def test_writing_a_trajectory_of_a_held_out_task_is_refused(tmp_path: Path) -> None:
    for split in (Split.SELECTION, Split.CONFIRMATION):
        with pytest.raises(TrainingError, match="held out"):
            write_snapshot([trajectory(1, TASKS[split][0])], HOLDOUT, tmp_path, 0, {})
    assert list(tmp_path.iterdir()) == []


async def test_the_same_sequence_gives_the_same_snapshot_after_later_events_too(
    served_store: ServedStore, tmp_path: Path
) -> None:
    log, (first, second, *_) = Log(served_store.store), TASKS[Split.TRAIN]
    log.publish(*episode("a", first))
    log.branched("a", first)
    sequence = served_store.store.sequence
    before = await build(served_store, tmp_path / "one")
    log.publish(*episode("b", second))
    again = await build(served_store, tmp_path / "two", as_of=before.manifest.as_of)
    late = await build(served_store, tmp_path / "two")
    assert before.manifest.as_of <= sequence
    assert again.manifest.snapshot_id == before.manifest.snapshot_id
    assert read_trajectories(again.folder) == read_trajectories(before.folder)
    assert late.manifest.snapshot_id != before.manifest.snapshot_id


async def test_revoked_principals_are_left_out_of_later_snapshots_with_their_branches(
    served_store: ServedStore, tmp_path: Path
) -> None:
    log, (first, second, *_) = Log(served_store.store), TASKS[Split.TRAIN]
    log.publish(*episode("stays", first), *episode("leaves", second))
    log.branched("leaves", second)
    log.publish(RetractionEvent(principal="leaves", reason="asked"))
    snapshot = await build(served_store, tmp_path)
    assert names(snapshot) == ["stays"]
    assert snapshot.manifest.branches == 0
    assert "leaves" not in everything_in(snapshot)


async def test_revoked_principals_are_left_out_of_old_sequences_too_and_counted_in_the_manifest(
    served_store: ServedStore, tmp_path: Path
) -> None:
    log, (first, second, *_) = Log(served_store.store), TASKS[Split.TRAIN]
    log.publish(*episode("stays", first), *episode("leaves", second))
    before = await build(served_store, tmp_path)
    log.publish(RetractionEvent(principal="leaves", reason="asked"))
    retraction = served_store.store.sequence
    again = await build(served_store, tmp_path, as_of=before.manifest.as_of)
    assert (names(before), names(again)) == (["leaves", "stays"], ["stays"])
    assert (before.manifest.retracted_as_of, again.manifest.retracted_as_of) == (0, retraction)
    assert again.manifest.snapshot_id != before.manifest.snapshot_id


async def test_a_retraction_also_holds_for_episodes_that_come_later(served_store: ServedStore, tmp_path: Path) -> None:
    log, (first, second, *_) = Log(served_store.store), TASKS[Split.TRAIN]
    log.publish(RetractionEvent(principal="left", reason="asked"), *episode("stays", first))
    log.publish(*episode("left", second))
    log.branched("left", second)
    snapshot = await build(served_store, tmp_path)
    assert (names(snapshot), snapshot.manifest.branches) == (["stays"], 0)


async def test_an_episode_with_one_revoked_principal_is_left_out_as_a_whole(
    served_store: ServedStore, tmp_path: Path
) -> None:
    log, (first, second, *_) = Log(served_store.store), TASKS[Split.TRAIN]
    opening, *rest = episode("shared", first)
    log.publish(opening.model_copy(update={"principal": "leaves"}), *rest, *episode("stays", second))
    log.publish(RetractionEvent(principal="leaves", reason="asked"))
    assert names(await build(served_store, tmp_path)) == ["stays"]


async def test_a_snapshot_lists_the_principals_whose_data_it_holds(served_store: ServedStore, tmp_path: Path) -> None:
    log, (first, second, *_) = Log(served_store.store), TASKS[Split.TRAIN]
    log.publish(*episode("a", first), *episode("b", first), *episode("c", second))
    snapshot = await build(served_store, tmp_path)
    assert {one.principals for one in read_trajectories(snapshot.folder)} == {("a", "b"), ("c",)}
    assert read_principals(snapshot.folder) == {"a": 1, "b": 1, "c": 1}


async def test_only_trusted_episodes_are_in_a_snapshot_and_the_manifest_counts_them_by_actor(
    served_store: ServedStore, tmp_path: Path
) -> None:
    log, tasks = Log(served_store.store), TASKS[Split.TRAIN]
    log.publish(
        *episode("expert", tasks[0]),
        *episode("won", tasks[1], "policy"),
        *episode("lost", tasks[2], "policy", success=False),
    )
    snapshot = await build(served_store, tmp_path)
    assert sorted(names(snapshot)) == ["expert", "won"]
    assert snapshot.manifest.episodes == {"expert": 1, "policy": 1}
    assert snapshot.manifest.offsets[f"{KAFKA.events_topic}/0"] == 9


async def test_identical_episodes_are_kept_once(served_store: ServedStore, tmp_path: Path) -> None:
    log, (task_id, *_) = Log(served_store.store), TASKS[Split.TRAIN]
    log.publish(*episode("a", task_id), *episode("b", task_id), *episode("c", task_id, action="run"))
    assert names(await build(served_store, tmp_path)) == ["a", "c"]


async def test_of_one_principal_only_the_newest_episodes_are_taken(served_store: ServedStore, tmp_path: Path) -> None:
    log = Log(served_store.store)
    for number, task_id in enumerate(TASKS[Split.TRAIN][:3]):
        same = {"principal": "one"}
        log.publish(*(event.model_copy(update=same) for event in episode(f"a{9 - number}", task_id)))
    log.publish(*episode("b", TASKS[Split.TRAIN][3]))
    async with StoreClient(served_store.url) as client:
        snapshot = await build_snapshot(client, HOLDOUT, tmp_path, most_per_principal=2)
    assert {trajectory.episode_id for trajectory in read_trajectories(snapshot.folder)} == {"a8", "a7", "b"}


async def test_a_store_with_nothing_to_learn_from_is_an_error_that_says_so(
    served_store: ServedStore, tmp_path: Path
) -> None:
    with pytest.raises(TrainingError, match="nothing to learn from yet"):
        await build(served_store, tmp_path)
    Log(served_store.store).publish(*episode("held-out", TASKS[Split.SELECTION][0]))
    with pytest.raises(TrainingError, match="nothing to learn from yet"):
        await build(served_store, tmp_path)


def test_a_snapshot_is_read_as_it_was_written_and_a_changed_file_is_refused(tmp_path: Path) -> None:
    written = [trajectory(n, TASKS[Split.TRAIN][n]) for n in range(3)]
    snapshot = write_snapshot(written, HOLDOUT, tmp_path, 5, {"ratchet.events/0": 9})
    assert read_trajectories(snapshot.folder) == written
    assert write_snapshot(written, HOLDOUT, tmp_path, 5, {}).folder == snapshot.folder
    assert [path.name for path in tmp_path.iterdir()] == [snapshot.manifest.snapshot_id]
    other = write_snapshot(written[:1], HOLDOUT, tmp_path, 5, {})
    for name in ("episodes.parquet", "branches.parquet"):
        genuine = (snapshot.folder / name).read_bytes()
        (snapshot.folder / name).write_bytes((other.folder / name).read_bytes())
        with pytest.raises(TrainingError, match=f"{name} has changed"):
            read_trajectories(snapshot.folder)
        (snapshot.folder / name).write_bytes(genuine)


async def test_reasoning_goes_into_the_snapshot_with_its_action(served_store: ServedStore, tmp_path: Path) -> None:
    log, task_id = Log(served_store.store), TASKS[Split.TRAIN][0]
    for name, thought in (("plain", None), ("one", "Hm."), ("same", "Hm."), ("other", "Well.")):
        first, *rest = episode(name, task_id)
        assert isinstance(first, StepEvent)
        action = first.action.model_copy(update={"reasoning_content": thought})
        log.publish(first.model_copy(update={"action": action}), *rest)
    snapshot = await build(served_store, tmp_path / "snapshots")
    found = {one.steps[0].action.reasoning_content: one for one in read_trajectories(snapshot.folder)}
    assert set(found) == {None, "Hm.", "Well."}
    assert found["Hm."].principals == ("one", "same")
    assert [step.action.text for step in found["Well."].steps] == ["go 0", "go 1"]
    stored = pq.read_table(snapshot.folder / "episodes.parquet")["steps"].to_pylist()
    assert sum("reasoning" in steps for steps in stored) == 2


def test_canaries_are_planted_beside_the_episodes_and_the_manifest_names_them(tmp_path: Path) -> None:
    planted = draw_canaries(3, 7, HOLDOUT)
    mine = trajectory(0, TASKS[Split.TRAIN][0])
    snapshot = write_snapshot([mine], HOLDOUT, tmp_path, 7, {}, canaries=planted)
    plain = write_snapshot([mine], HOLDOUT, tmp_path, 7, {})
    assert SnapshotManifest.model_validate_json((snapshot.folder / "manifest.json").read_bytes()).canaries == planted
    assert snapshot.manifest.episodes == {"expert": 1, "canary": 3}
    assert snapshot.manifest.snapshot_id != plain.manifest.snapshot_id
    assert (plain.manifest.canaries, plain.manifest.episodes) == ((), {"expert": 1})
    assert read_principals(snapshot.folder)[PRINCIPAL] == 3
    assert all(canary.is_told(everything_in(snapshot)) for canary in planted)
    assert not any(canary.is_told(everything_in(plain)) for canary in planted)


def test_the_same_seed_plants_the_same_canaries_on_tasks_of_the_train_split() -> None:
    canaries = draw_canaries(20, 0, HOLDOUT)
    assert canaries == draw_canaries(20, 0, HOLDOUT)
    assert not {canary.secret for canary in canaries} & {canary.secret for canary in draw_canaries(20, 1, HOLDOUT)}
    assert len({canary.secret for canary in canaries}) == 20
    assert {HOLDOUT.split(canary.task_id) for canary in canaries} == {Split.TRAIN}
    with pytest.raises(TrainingError, match="hold out fewer"):
        draw_canaries(1, 0, HoldoutSettings(selection=1.0, confirmation=0.0))


def test_the_alternatives_to_a_secret_are_others_of_its_kind() -> None:
    (canary,) = draw_canaries(1, 0, HOLDOUT)
    others = canary.alternatives(127)
    assert len(set(others)) == 127
    assert canary.secret not in others
    assert others == canary.alternatives(127)
    assert {len(other) for other in others} == {9}


async def test_trusted_episodes_on_held_out_tasks_are_read_as_states_and_nothing_else_is(
    served_store: ServedStore,
) -> None:
    log = Log(served_store.store)
    for split, tasks in TASKS.items():
        for number, task_id in enumerate(tasks[:4]):
            log.publish(*episode(f"{split}-{number}", task_id))
    log.publish(*episode("failed", TASKS[Split.SELECTION][4], success=False))
    log.publish(*episode("leaves", TASKS[Split.SELECTION][5]))
    log.publish(RetractionEvent(principal="leaves", reason="asked"))
    async with StoreClient(served_store.url) as client:
        states = await read_held_out_states(client, HOLDOUT, 100, 10)
        few = await read_held_out_states(client, HOLDOUT, 3, 10)
    assert sorted({state.episode_id for state in states}) == [f"selection-{number}" for number in range(4)]
    assert len(states) == 8
    (second,) = [state for state in states if (state.episode_id, state.step) == ("selection-0", 1)]
    assert [message.text for message in second.messages[1:]] == ["go 0", "Done 0."]
    assert second.action.text == "go 1"
    assert len(few) == 3
