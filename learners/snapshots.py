"""Snapshots: the immutable training set of one cycle, as Parquet files and a manifest.

Built from the store *as of* a sequence, so the same sequence gives the same snapshot until somebody withdraws: privacy
outweighs an exact rebuild, so every retraction the store knows is obeyed, however old the sequence. Tasks outside the
train split never get in: the builder asks for the split itself, whatever the store says about an episode.
"""

import os
import shutil
import tempfile
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, TypeAdapter

from learners.base_model import file_sha256
from learners.settings import MOST_PER_PRINCIPAL
from learners.trajectories import Branch, Trajectory
from streams.crash_points import CrashPoint, reach
from streams.errors import TrainingError
from streams.events import Message, RecordedStep
from streams.holdout import HoldoutSettings, Split
from streams.ids import content_id
from streams.store_client import StoreClient

_EPISODES = "episodes.parquet"
_BRANCHES = "branches.parquet"
_MANIFEST = "manifest.json"
_MESSAGES: TypeAdapter[tuple[Message, ...]] = TypeAdapter(tuple[Message, ...])
_STEPS: TypeAdapter[tuple[RecordedStep, ...]] = TypeAdapter(tuple[RecordedStep, ...])

_EPISODE_SCHEMA = pa.schema(
    [
        ("episode_id", pa.string()),
        ("task_id", pa.string()),
        ("actor_kind", pa.string()),
        ("adapter", pa.string()),
        ("principals", pa.list_(pa.string())),
        ("opening", pa.string()),
        ("steps", pa.string()),
    ]
)
_BRANCH_SCHEMA = pa.schema(
    [
        ("episode_id", pa.string()),
        ("step", pa.int32()),
        ("action", pa.string()),
        ("observation", pa.string()),
        ("source", pa.string()),
        ("fidelity", pa.string()),
    ]
)


class SnapshotManifest(BaseModel):
    """What a snapshot holds. `offsets` is how far the log was read when it was built, by `topic/partition`.

    `retracted_as_of` is the sequence of the latest retraction that was obeyed, 0 for none. Both sequences together say
    what is in it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    snapshot_id: str
    as_of: int
    retracted_as_of: int = 0
    offsets: dict[str, int]
    episodes: dict[str, int]
    steps: int
    branches: int
    holdout: str
    files: dict[str, str]


@dataclass(frozen=True, slots=True)
class Snapshot:
    folder: Path
    manifest: SnapshotManifest


async def build_snapshot(
    store: StoreClient,
    holdout: HoldoutSettings,
    home: Path,
    as_of: int | None = None,
    most_per_principal: int = MOST_PER_PRINCIPAL,
) -> Snapshot:
    """Write the trusted episodes of the train split, and their branches, as of a sequence (by default the latest).

    A trajectory that several episodes share is kept once: repeating it would only weigh it more. An episode in which a
    principal took part that has withdrawn by now is left out whole, since each state repeats what was said before. Of
    each principal the newest `most_per_principal` episodes are taken: what poisons a model is a number of texts, not a
    share.

    Raises:
        TrainingError: nothing in the store may be learned from yet.
        StoreError: the store does not answer.
    """
    if as_of is None:
        as_of = int((await store.query(_LATEST_SQL))["sequence"][0].as_py())
    retracted_as_of = int((await store.query(_RETRACTED_SQL))["sequence"][0].as_py())
    steps = (
        await store.query(
            _STEPS_SQL.format(as_of=as_of, retracted_as_of=retracted_as_of, most_per_principal=most_per_principal)
        )
    ).to_pylist()
    branches = (await store.query(_BRANCHES_SQL.format(as_of=as_of))).to_pylist()
    trajectories = assemble(steps, branches, holdout)
    if not trajectories:
        raise TrainingError(
            "the store holds no trusted episode of a task in the train split: nothing to learn from yet"
        )
    offsets = (await store.query(_OFFSETS_SQL)).to_pylist()
    positions = {f"{row['topic']}/{row['partition']}": int(row["next"]) for row in offsets}
    return write_snapshot(trajectories, holdout, home, as_of, positions, retracted_as_of)


def assemble(
    steps: Sequence[Mapping[str, Any]], branches: Sequence[Mapping[str, Any]], holdout: HoldoutSettings
) -> list[Trajectory]:
    """Trajectories from stored rows; steps of tasks that are held out are left behind."""
    episodes: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for row in steps:
        if holdout.split(row["task_id"]) is Split.TRAIN:
            episodes[row["episode_id"]].append(row)
    found: dict[str, list[Branch]] = defaultdict(list)
    for row in branches:
        found[row["episode_id"]].append(
            Branch(row["step"], row["action"], row["observation"], row["source"], row["fidelity"])
        )
    alike: dict[str, list[str]] = defaultdict(list)
    for episode_id, rows in episodes.items():
        identity = content_id(rows[0]["task_id"], rows[0]["messages"], *(row["action"] for row in rows))
        alike[identity].append(episode_id)
    trajectories = []
    for same in alike.values():
        rows = episodes[same[0]]
        first = rows[0]
        trajectories.append(
            Trajectory(
                episode_id=same[0],
                task_id=first["task_id"],
                opening=_MESSAGES.validate_json(first["messages"]),
                steps=tuple(RecordedStep(action=row["action"], observation=row["observation"]) for row in rows),
                branches=tuple(found[same[0]]),
                actor_kind=first["actor_kind"],
                adapter=first["adapter"],
                principals=tuple(sorted({row["principal"] for episode in same for row in episodes[episode]})),
            )
        )
    return trajectories


def write_snapshot(
    trajectories: Sequence[Trajectory],
    holdout: HoldoutSettings,
    home: Path,
    as_of: int,
    offsets: dict[str, int],
    retracted_as_of: int = 0,
) -> Snapshot:
    """Write trajectories as a snapshot into `home`/<snapshot id>. The same content is written once.

    Raises `TrainingError` when a trajectory is of a task that is held out.
    """
    leaked = [trajectory.task_id for trajectory in trajectories if holdout.split(trajectory.task_id) is not Split.TRAIN]
    if leaked:
        raise TrainingError(f"tasks {', '.join(leaked[:3])} are held out and must never be trained on")
    home.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=".building-", dir=home))
    try:
        pq.write_table(_episode_table(trajectories), scratch / _EPISODES)
        pq.write_table(_branch_table(trajectories), scratch / _BRANCHES)
        files = {name: file_sha256(scratch / name) for name in (_EPISODES, _BRANCHES)}
        settings = content_id(holdout.model_dump_json())
        manifest = SnapshotManifest(
            snapshot_id=content_id(str(as_of), str(retracted_as_of), settings, *files.values()),
            as_of=as_of,
            retracted_as_of=retracted_as_of,
            offsets=offsets,
            episodes=dict(Counter(trajectory.actor_kind for trajectory in trajectories)),
            steps=sum(len(trajectory.steps) for trajectory in trajectories),
            branches=sum(len(trajectory.branches) for trajectory in trajectories),
            holdout=settings,
            files=files,
        )
        (scratch / _MANIFEST).write_text(manifest.model_dump_json(indent=2))
        folder = home / manifest.snapshot_id
        if not folder.exists():
            reach(CrashPoint.SNAPSHOT_RENAME_BEFORE)
            os.replace(scratch, folder)
            reach(CrashPoint.SNAPSHOT_RENAME_AFTER)
        return Snapshot(folder, manifest)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def read_trajectories(folder: Path) -> list[Trajectory]:
    """The trajectories of a snapshot. Raises `TrainingError` when a file is not the one the manifest names."""
    _check_files(folder)
    branches: dict[str, list[Branch]] = defaultdict(list)
    for row in pq.read_table(folder / _BRANCHES).to_pylist():
        branches[row.pop("episode_id")].append(Branch(**row))
    return [
        Trajectory(
            episode_id=row["episode_id"],
            task_id=row["task_id"],
            opening=_MESSAGES.validate_json(row["opening"]),
            steps=_STEPS.validate_json(row["steps"]),
            branches=tuple(branches[row["episode_id"]]),
            actor_kind=row["actor_kind"],
            adapter=row["adapter"],
            principals=tuple(row["principals"]),
        )
        for row in pq.read_table(folder / _EPISODES).to_pylist()
    ]


def read_principals(folder: Path) -> Counter[str]:
    """How many of a snapshot's trajectories are of each principal.

    Raises `TrainingError` when it is not whole, or was made before snapshots said whose data they hold.
    """
    _check_files(folder)
    table = pq.read_table(folder / _EPISODES)
    if "principals" not in table.schema.names:
        raise TrainingError(f"{folder} does not say whose data it holds: it was made by an older version")
    return Counter(principal for principals in table["principals"].to_pylist() for principal in principals)


def _check_files(folder: Path) -> None:
    try:
        manifest = SnapshotManifest.model_validate_json((folder / _MANIFEST).read_bytes())
        changed = [name for name, digest in manifest.files.items() if file_sha256(folder / name) != digest]
    except FileNotFoundError as error:
        raise TrainingError(f"there is no whole snapshot in {folder}: {error.filename} is missing") from error
    if changed:
        raise TrainingError(f"{folder / changed[0]} has changed since the snapshot was made: build it again")


def _episode_table(trajectories: Sequence[Trajectory]) -> pa.Table:
    rows = [
        {
            "episode_id": trajectory.episode_id,
            "task_id": trajectory.task_id,
            "actor_kind": trajectory.actor_kind,
            "adapter": trajectory.adapter,
            "principals": trajectory.principals,
            "opening": _MESSAGES.dump_json(trajectory.opening).decode(),
            "steps": _STEPS.dump_json(trajectory.steps).decode(),
        }
        for trajectory in trajectories
    ]
    return pa.Table.from_pylist(rows, schema=_EPISODE_SCHEMA)


def _branch_table(trajectories: Sequence[Trajectory]) -> pa.Table:
    rows = [
        {"episode_id": trajectory.episode_id, **asdict(branch)}
        for trajectory in trajectories
        for branch in trajectory.branches
    ]
    return pa.Table.from_pylist(rows, schema=_BRANCH_SCHEMA)


_LATEST_SQL = """
    SELECT coalesce(max(sequence), 0) AS sequence
    FROM (
        SELECT sequence FROM transitions
        UNION ALL SELECT sequence FROM trusted
        UNION ALL SELECT sequence FROM retractions
    )
"""

_OFFSETS_SQL = "SELECT topic, partition, next FROM offsets WHERE topic <> 'outbox' ORDER BY ALL"

_RETRACTED_SQL = "SELECT coalesce(max(sequence), 0) AS sequence FROM retractions"

_STEPS_SQL = """
    SELECT episode_id, task_id, step, messages, action, observation, actor_kind, adapter, principal
    FROM transitions
    SEMI JOIN (
        SELECT episode_id FROM trusted WHERE split = 'train' AND sequence <= {as_of}
        QUALIFY row_number() OVER (PARTITION BY principal ORDER BY sequence DESC) <= {most_per_principal}
    ) USING (episode_id)
    ANTI JOIN (
        SELECT episode_id FROM transitions
        WHERE sequence <= {as_of}
          AND principal IN (SELECT principal FROM retractions WHERE sequence <= {retracted_as_of})
    ) USING (episode_id)
    WHERE origin = 'production' AND sequence <= {as_of}
    ORDER BY episode_id, step
"""

_BRANCHES_SQL = """
    SELECT DISTINCT ON (transition_id) episode_id, step, action, observation, source, fidelity
    FROM transitions
    WHERE origin = 'branch' AND sequence <= {as_of}
    ORDER BY episode_id, step, transition_id
"""
