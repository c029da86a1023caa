"""Snapshots: the immutable training set of one cycle, as Parquet files and a manifest.

Built from the store *as of* a sequence, so the same sequence gives the same snapshot until consent is revoked: privacy
outweighs an exact rebuild, so every retraction the store knows is obeyed, however old the sequence. An episode that
lost trust is left out from the sequence on at which it did. Tasks outside the train split never get in: the builder
asks for the split itself, whatever the store says about an episode.
"""

from collections import Counter, defaultdict
from collections.abc import Sequence, Set
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import ValidationError

from learners.assembly import assemble, stored_branch
from learners.base_model import file_sha256
from learners.canaries import Canary
from learners.settings import MOST_PER_PRINCIPAL, MOST_PRACTISED_PER_TASK
from learners.stored_rows import NOTHING_OLDER, Older, Row, read_rows
from learners.trajectories import INSTRUCTED, REFLECTED, Branch, Rationale, Trajectory
from ratchet_client.crash_points import CrashPoint, reach
from ratchet_client.ids import content_id
from ratchet_client.messages import MESSAGES, as_json, assistant, user
from ratchet_client.settings import FrozenModel
from streams import schema_versions
from streams.branch_events import STEPS
from streams.errors import TrainingError
from streams.runtime.files import move_into_place, new_folder
from streams.store.client import StoreClient
from streams.trust.groups import Members
from streams.trust.holdout import HoldoutSettings, Split

_EPISODES = "episodes.parquet"
_BRANCHES = "branches.parquet"
_MANIFEST = "manifest.json"

_EPISODE_SCHEMA = pa.schema(
    [
        ("episode_id", pa.string()),
        ("task_id", pa.string()),
        ("actor_kind", pa.string()),
        ("adapter", pa.string()),
        ("principals", pa.list_(pa.string())),
        ("opening", pa.string()),
        ("steps", pa.string()),
        ("learn_from", pa.int32()),
        ("origin", pa.string()),
        ("success", pa.bool_()),
        ("score", pa.float64()),
        ("log_probabilities", pa.list_(pa.list_(pa.float64()))),
        ("rationales", pa.list_(pa.struct([("step", pa.int32()), ("text", pa.string()), ("writer", pa.string())]))),
        ("older", pa.bool_()),
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
        ("score", pa.float64()),
        ("done", pa.bool_()),
    ]
)


class SnapshotManifest(FrozenModel):
    """Content of a snapshot. `offsets` is how far the log was read when it was built, by `topic/partition`.

    `retracted_as_of` is the sequence of the latest retraction that was obeyed, 0 for none. Both sequences together say
    what is in it. `older` counts the trajectories that the adapter that is trained on from has learned from. In those
    of `schema_version` 1, actions and observations of branches are texts.
    """

    schema_version: int = 1
    snapshot_id: str
    as_of: int
    retracted_as_of: int = 0
    offsets: dict[str, int]
    episodes: dict[str, int]
    steps: int
    branches: int
    older: int = 0
    holdout: str
    files: dict[str, str]
    canaries: tuple[Canary, ...] = ()


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
    canaries: Sequence[Canary] = (),
    most_practised_per_task: int = MOST_PRACTISED_PER_TASK,
    older: Older = NOTHING_OLDER,
    base_samples: Sequence[Trajectory] = (),
    members: Members | None = None,
) -> Snapshot:
    """Write the trusted episodes of the train split, and their branches, as of a sequence (by default the latest).

    Of an episode the steps that were judged are taken, and not those that were stored later.
    A trajectory that several episodes share is kept once: repeating it would only weigh it more. An episode in which a
    principal took part that has revoked consent by now is left out whole, since each state repeats what was said
    before. Of each principal the newest `most_per_principal` episodes are taken: what poisons a model is a number of
    texts, not a share. `canaries` are planted beside them. Of practice, the newest `most_practised_per_task` successes
    and as many failures of each task are taken, each sample as a trajectory of its own. With `members` nothing gets in
    but the episodes of one group, and what its adapters practised.

    Raises:
        TrainingError: nothing in the store may be learned from yet.
        StoreError: the store does not answer.
    """
    rows = await read_rows(store, as_of, most_per_principal, most_practised_per_task, older, members)
    trajectories = assemble(rows, holdout)
    if not trajectories:
        raise TrainingError(
            "the store holds no trusted or practised episode of a task in the train split: nothing to learn from yet"
        )
    trajectories += base_samples
    return write_snapshot(
        trajectories, holdout, home, rows.as_of, rows.offsets, rows.retracted_as_of, canaries, rows.older
    )


def write_snapshot(
    trajectories: Sequence[Trajectory],
    holdout: HoldoutSettings,
    home: Path,
    as_of: int,
    offsets: dict[str, int],
    retracted_as_of: int = 0,
    canaries: Sequence[Canary] = (),
    older: Set[str] = frozenset(),
) -> Snapshot:
    """Write trajectories and canaries as a snapshot into `home`/<snapshot id>. The same content is written once.

    Canaries among `older` are marked so.

    Raises `TrainingError` when a trajectory is of a task that is held out.
    """
    planted = (replace(canary.trajectory(), older=canary.episode_id in older) for canary in canaries)
    trajectories = [*trajectories, *planted]
    leaked = [trajectory.task_id for trajectory in trajectories if holdout.split(trajectory.task_id) is not Split.TRAIN]
    if leaked:
        raise TrainingError(f"tasks {', '.join(leaked[:3])} are held out and must never be trained on")
    with new_folder(home) as scratch:
        pq.write_table(_episode_table(trajectories), scratch / _EPISODES)
        pq.write_table(_branch_table(trajectories), scratch / _BRANCHES)
        files = {name: file_sha256(scratch / name) for name in (_EPISODES, _BRANCHES)}
        settings = holdout_id(holdout)
        manifest = SnapshotManifest(
            schema_version=schema_versions.SNAPSHOTS,
            snapshot_id=content_id(str(as_of), str(retracted_as_of), settings, *files.values()),
            as_of=as_of,
            retracted_as_of=retracted_as_of,
            offsets=offsets,
            episodes=dict(Counter(map(_kind, trajectories))),
            steps=sum(len(trajectory.steps) for trajectory in trajectories),
            branches=sum(len(trajectory.branches) for trajectory in trajectories),
            older=sum(trajectory.older for trajectory in trajectories),
            holdout=settings,
            files=files,
            canaries=tuple(canaries),
        )
        (scratch / _MANIFEST).write_text(manifest.model_dump_json(indent=2))
        folder = home / manifest.snapshot_id
        reach(CrashPoint.SNAPSHOT_RENAME_BEFORE)
        move_into_place(scratch, folder)
        reach(CrashPoint.SNAPSHOT_RENAME_AFTER)
        return Snapshot(folder, manifest)


def holdout_id(holdout: HoldoutSettings) -> str:
    """The id of held-out tasks, as a manifest has it."""
    return content_id(holdout.model_dump_json())


def read_snapshot(folder: Path) -> Snapshot:
    """The snapshot in `folder`. Raises `TrainingError` when a file is not the one the manifest names."""
    return Snapshot(folder, _check_files(folder))


def read_trajectories(folder: Path) -> list[Trajectory]:
    """The trajectories of a snapshot. Raises `TrainingError` when a file is not the one the manifest names."""
    manifest = _check_files(folder)
    branches: dict[str, list[Branch]] = defaultdict(list)
    for row in pq.read_table(folder / _BRANCHES).to_pylist():
        branches[row["episode_id"]].append(_branch(row, manifest.schema_version))
    return [
        Trajectory(
            episode_id=row["episode_id"],
            task_id=row["task_id"],
            opening=MESSAGES.validate_json(row["opening"]),
            steps=STEPS.validate_json(row["steps"]),
            branches=tuple(branches[row["episode_id"]]),
            actor_kind=row["actor_kind"],
            adapter=row["adapter"],
            principals=tuple(row["principals"]),
            learn_from=row["learn_from"],
            older=manifest.schema_version > 3 and row["older"],
            **(_outcome(row) if manifest.schema_version > 2 else {}),
        )
        for row in pq.read_table(folder / _EPISODES).to_pylist()
    ]


def read_principals(folder: Path) -> Counter[str]:
    """Count a snapshot's trajectories by principal.

    Raises `TrainingError` when it is not whole, or was made before snapshots said whose data they hold.
    """
    _check_files(folder)
    table = pq.read_table(folder / _EPISODES)
    if "principals" not in table.schema.names:
        raise TrainingError(f"{folder} does not say whose data it holds: it was made by an older version")
    return Counter(principal for principals in table["principals"].to_pylist() for principal in principals)


def read_episodes(folder: Path) -> frozenset[str]:
    """The ids of a snapshot's episodes and recoveries. Raises `TrainingError` when it is not whole."""
    _check_files(folder)
    return frozenset(pq.read_table(folder / _EPISODES, columns=["episode_id"])["episode_id"].to_pylist())


def _kind(trajectory: Trajectory) -> str:
    """The name under which the manifest counts a trajectory."""
    if trajectory.origin == "practice":
        if trajectory.actor_kind in (REFLECTED, INSTRUCTED):
            return f"practice_{trajectory.actor_kind}"
        return "practice" if trajectory.success else "practice_failed"
    return trajectory.actor_kind


def _outcome(row: Row) -> dict[str, Any]:
    """The fields that trajectories have since schema 3."""
    return {
        "origin": row["origin"],
        "success": row["success"],
        "score": row["score"],
        "log_probabilities": tuple(map(tuple, row["log_probabilities"])),
        "rationales": tuple(Rationale(**rationale) for rationale in row["rationales"]),
    }


def _branch(row: Row, schema: int) -> Branch:
    if schema > 1:
        return stored_branch(row)
    return Branch(row["step"], assistant(row["action"]), (user(row["observation"]),), row["source"], row["fidelity"])


def _check_files(folder: Path) -> SnapshotManifest:
    try:
        manifest = SnapshotManifest.model_validate_json((folder / _MANIFEST).read_bytes())
        changed = [name for name, digest in manifest.files.items() if file_sha256(folder / name) != digest]
    except FileNotFoundError as error:
        raise TrainingError(f"the snapshot in {folder} is incomplete: {error.filename} is missing") from error
    except ValidationError as error:
        raise TrainingError(
            f"{folder / _MANIFEST} cannot be read: it was changed, or a newer version wrote it; restore it from a "
            "backup, or install that version"
        ) from error
    if manifest.schema_version > schema_versions.SNAPSHOTS:
        raise TrainingError(
            f"the snapshot in {folder} has schema {manifest.schema_version}, and this version of Ratchet knows schemas "
            f"up to {schema_versions.SNAPSHOTS}: install the newer version that made it"
        )
    if changed:
        raise TrainingError(f"{folder / changed[0]} has changed since the snapshot was made: build it again")
    return manifest


def _episode_table(trajectories: Sequence[Trajectory]) -> pa.Table:
    rows = [
        {
            "episode_id": trajectory.episode_id,
            "task_id": trajectory.task_id,
            "actor_kind": trajectory.actor_kind,
            "adapter": trajectory.adapter,
            "principals": trajectory.principals,
            "opening": as_json(trajectory.opening),
            "steps": STEPS.dump_json(trajectory.steps, exclude_none=True).decode(),
            "learn_from": trajectory.learn_from,
            "origin": trajectory.origin,
            "success": trajectory.success,
            "score": trajectory.score,
            "log_probabilities": trajectory.log_probabilities,
            "rationales": [asdict(rationale) for rationale in trajectory.rationales],
            "older": trajectory.older,
        }
        for trajectory in trajectories
    ]
    return pa.Table.from_pylist(rows, schema=_EPISODE_SCHEMA)


def _branch_table(trajectories: Sequence[Trajectory]) -> pa.Table:
    rows = [
        {
            "episode_id": trajectory.episode_id,
            "step": branch.step,
            "action": branch.action.to_json().decode(),
            "observation": as_json(branch.observation),
            "source": branch.source,
            "fidelity": branch.fidelity,
            "score": branch.score,
            "done": branch.done,
        }
        for trajectory in trajectories
        for branch in trajectory.branches
    ]
    return pa.Table.from_pylist(rows, schema=_BRANCH_SCHEMA)
