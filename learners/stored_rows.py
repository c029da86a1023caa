"""The rows of a snapshot, read from the store as of a sequence for `learners.snapshots`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

from learners.settings import MOST_PRACTISED_PER_TASK
from ratchet_client.ids import content_id
from streams.store.client import StoreClient
from streams.store.database import Parameter
from streams.store.queries.practice import PRACTICE_STEPS, PRACTICE_STEPS_OF_GROUP
from streams.store.queries.retractions import LATEST_RETRACTION
from streams.store.queries.snapshots import FOR_ALL, LATEST_SEQUENCE, OF_GROUP, OFFSETS_OF_PARTITIONS
from streams.trust.groups import Members

Row: TypeAlias = Mapping[str, Any]

# A snapshot reads most of a store, which may be large, and waits for its turn among other queries.
READ_TIMEOUT_S = 1800.0


@dataclass(frozen=True, slots=True)
class Older:
    """The ids of the trajectories that the adapter that is trained on from has learned from.

    Of those that are not among the newest ones of a principal, or of a task, `most` are read all the same.
    """

    trajectories: frozenset[str] = frozenset()
    most: int = 0


NOTHING_OLDER = Older()


@dataclass(frozen=True, slots=True)
class StoredRows:
    """`steps` are of trusted episodes, `branches` of any, `recovered_steps` of episodes that have `recoveries`.

    `practised_steps` are of practice episodes, each with the outcome of its episode.
    Steps are those that were there when their episode was judged.
    `retracted_as_of` is the sequence of the latest retraction that was obeyed, 0 for none. `older` are the ids of the
    trajectories that were learned from before, whether or not there are rows of them.
    """

    as_of: int
    retracted_as_of: int
    offsets: dict[str, int]
    steps: Sequence[Row]
    branches: Sequence[Row]
    recovered_steps: Sequence[Row]
    recoveries: Sequence[Row]
    practised_steps: Sequence[Row] = ()
    older: frozenset[str] = frozenset()

    @property
    def trajectories(self) -> set[str]:
        """The ids of the trajectories that there are rows of."""
        steps = {row["episode_id"] for row in (*self.steps, *self.practised_steps)}
        return steps | {row["recovery_id"] for row in self.recoveries}


async def read_rows(
    store: StoreClient,
    as_of: int | None,
    most_per_principal: int,
    most_per_task: int = MOST_PRACTISED_PER_TASK,
    older: Older = NOTHING_OLDER,
    members: Members | None = None,
) -> StoredRows:
    """The rows as of a sequence, by default the latest. Raises `StoreError` when the store does not answer.

    With `members` they are of the episodes of one group, and of what its adapters practised, alone.
    """
    if as_of is None:
        as_of = int((await store.query(LATEST_SEQUENCE, timeout_s=READ_TIMEOUT_S))["sequence"][0].as_py())
    retracted_as_of = int((await store.query(LATEST_RETRACTION, timeout_s=READ_TIMEOUT_S))["sequence"][0].as_py())
    queries, practice_steps = (OF_GROUP, PRACTICE_STEPS_OF_GROUP) if members else (FOR_ALL, PRACTICE_STEPS)
    moment: dict[str, Parameter] = {"as_of": as_of}
    within: dict[str, Parameter] = moment | (dict(members.parameters()) if members else {})

    async def rows(sql: str, parameters: dict[str, Parameter]) -> list[dict[str, Any]]:
        return list((await store.query(sql, parameters, READ_TIMEOUT_S)).to_pylist())

    async def learnable(most_per_principal: int, most_per_task: int, older: Sequence[str]) -> _Learnable:
        """What may be learned from: the newest, and of `older` the rest."""
        among: dict[str, Parameter] = moment | {"older": older}
        of_principals, of_practice = within | among, among | {"most_per_task": most_per_task}
        if members:
            of_practice |= members.practice_parameters()
        of_principals |= {"retracted_as_of": retracted_as_of, "most_per_principal": most_per_principal}
        return _Learnable(
            await rows(queries.trusted_steps, of_principals),
            await rows(queries.recoveries, of_principals),
            await rows(practice_steps, of_practice),
        )

    newest = await learnable(most_per_principal, most_per_task, ())
    found = StoredRows(
        as_of=as_of,
        retracted_as_of=retracted_as_of,
        offsets={f"{row['topic']}/{row['partition']}": row["next"] for row in await rows(OFFSETS_OF_PARTITIONS, {})},
        steps=newest.steps,
        branches=await rows(queries.branches, within),
        recovered_steps=await rows(queries.recovered_steps, within),
        recoveries=newest.recoveries,
        practised_steps=newest.practised_steps,
        older=older.trajectories,
    )
    # In an order that is always the same, and prefers neither the first nor the last.
    missing = sorted(older.trajectories - found.trajectories, key=content_id)[: older.most]
    if not missing:
        return found
    replayed = await learnable(0, 0, missing)
    return replace(
        found,
        steps=[*found.steps, *replayed.steps],
        recoveries=[*found.recoveries, *replayed.recoveries],
        practised_steps=[*found.practised_steps, *replayed.practised_steps],
    )


@dataclass(frozen=True, slots=True)
class _Learnable:
    """The rows that decide what is learned from: see `StoredRows`."""

    steps: Sequence[Row]
    recoveries: Sequence[Row]
    practised_steps: Sequence[Row]


async def read_held_out_steps(
    store: StoreClient, most_episodes: int, most_per_principal: int, members: Members | None = None
) -> list[Row]:
    """Steps of the newest trusted episodes of the selection split; with `members` of those of one group alone.

    Raises `StoreError` when the store does not answer.
    """
    sequence = int((await store.query(LATEST_SEQUENCE, timeout_s=READ_TIMEOUT_S))["sequence"][0].as_py())
    retracted = int((await store.query(LATEST_RETRACTION, timeout_s=READ_TIMEOUT_S))["sequence"][0].as_py())
    parameters: dict[str, Parameter] = {
        "as_of": sequence,
        "retracted_as_of": retracted,
        "most_per_principal": most_per_principal,
        "most_episodes": most_episodes,
        **(members.parameters() if members else {}),
    }
    query = (OF_GROUP if members else FOR_ALL).held_out_steps
    return list((await store.query(query, parameters, READ_TIMEOUT_S)).to_pylist())
