"""The rows of a snapshot, read from the store as of a sequence for `learners.snapshots`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from learners.settings import MOST_PRACTISED_PER_TASK
from streams.store.client import StoreClient
from streams.store.database import Parameter
from streams.store.queries.practice import PRACTICE_STEPS
from streams.store.queries.retractions import LATEST_RETRACTION
from streams.store.queries.snapshots import (
    BRANCHES,
    HELD_OUT_STEPS,
    LATEST_SEQUENCE,
    OFFSETS_OF_PARTITIONS,
    RECOVERED_STEPS,
    RECOVERIES,
    TRUSTED_STEPS,
)

Row: TypeAlias = Mapping[str, Any]

# A snapshot reads most of a store, which may be large, and waits for its turn among other queries.
READ_TIMEOUT_S = 1800.0


@dataclass(frozen=True, slots=True)
class StoredRows:
    """`steps` are of trusted episodes, `branches` of any, `recovered_steps` of episodes that have `recoveries`.

    `practised_steps` are of practice episodes, each with the outcome of its episode.
    Steps are those that were there when their episode was judged.
    `retracted_as_of` is the sequence of the latest retraction that was obeyed, 0 for none.
    """

    as_of: int
    retracted_as_of: int
    offsets: dict[str, int]
    steps: Sequence[Row]
    branches: Sequence[Row]
    recovered_steps: Sequence[Row]
    recoveries: Sequence[Row]
    practised_steps: Sequence[Row] = ()


async def read_rows(
    store: StoreClient, as_of: int | None, most_per_principal: int, most_per_task: int = MOST_PRACTISED_PER_TASK
) -> StoredRows:
    """The rows as of a sequence, by default the latest. Raises `StoreError` when the store does not answer."""
    if as_of is None:
        as_of = int((await store.query(LATEST_SEQUENCE, timeout_s=READ_TIMEOUT_S))["sequence"][0].as_py())
    retracted_as_of = int((await store.query(LATEST_RETRACTION, timeout_s=READ_TIMEOUT_S))["sequence"][0].as_py())
    moment: dict[str, Parameter] = {"as_of": as_of}
    learnable = moment | {"retracted_as_of": retracted_as_of, "most_per_principal": most_per_principal}

    async def rows(sql: str, parameters: dict[str, Parameter]) -> list[dict[str, Any]]:
        return list((await store.query(sql, parameters, READ_TIMEOUT_S)).to_pylist())

    return StoredRows(
        as_of=as_of,
        retracted_as_of=retracted_as_of,
        offsets={f"{row['topic']}/{row['partition']}": row["next"] for row in await rows(OFFSETS_OF_PARTITIONS, {})},
        steps=await rows(TRUSTED_STEPS, learnable),
        branches=await rows(BRANCHES, moment),
        recovered_steps=await rows(RECOVERED_STEPS, moment),
        recoveries=await rows(RECOVERIES, learnable),
        practised_steps=await rows(PRACTICE_STEPS, moment | {"most_per_task": most_per_task}),
    )


async def read_held_out_steps(store: StoreClient, most_episodes: int, most_per_principal: int) -> list[Row]:
    """Steps of the newest trusted episodes of the selection split.

    Raises `StoreError` when the store does not answer.
    """
    sequence = int((await store.query(LATEST_SEQUENCE, timeout_s=READ_TIMEOUT_S))["sequence"][0].as_py())
    retracted = int((await store.query(LATEST_RETRACTION, timeout_s=READ_TIMEOUT_S))["sequence"][0].as_py())
    parameters: dict[str, Parameter] = {
        "as_of": sequence,
        "retracted_as_of": retracted,
        "most_per_principal": most_per_principal,
        "most_episodes": most_episodes,
    }
    return list((await store.query(HELD_OUT_STEPS, parameters, READ_TIMEOUT_S)).to_pylist())
