"""What the store is asked for a snapshot, by `learners.snapshots`: rows as of a sequence, less what was withdrawn."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from streams.store.client import StoreClient

Row: TypeAlias = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class StoredRows:
    """`steps` are of trusted episodes, `branches` of any, `beginnings` the steps of episodes that have `recoveries`.

    `retracted_as_of` is the sequence of the latest retraction that was obeyed, 0 for none.
    """

    as_of: int
    retracted_as_of: int
    offsets: dict[str, int]
    steps: Sequence[Row]
    branches: Sequence[Row]
    beginnings: Sequence[Row]
    recoveries: Sequence[Row]


async def read_rows(store: StoreClient, as_of: int | None, most_per_principal: int) -> StoredRows:
    """The rows as of a sequence, by default the latest. Raises `StoreError` when the store does not answer."""
    if as_of is None:
        as_of = int((await store.query(_LATEST_SQL))["sequence"][0].as_py())
    retracted_as_of = int((await store.query(_RETRACTED_SQL))["sequence"][0].as_py())

    async def rows(sql: str) -> list[dict[str, Any]]:
        found = await store.query(
            sql.format(as_of=as_of, retracted_as_of=retracted_as_of, most_per_principal=most_per_principal)
        )
        return list(found.to_pylist())

    return StoredRows(
        as_of=as_of,
        retracted_as_of=retracted_as_of,
        offsets={f"{row['topic']}/{row['partition']}": int(row["next"]) for row in await rows(_OFFSETS_SQL)},
        steps=await rows(_STEPS_SQL),
        branches=await rows(_BRANCHES_SQL),
        beginnings=await rows(_BEGINNINGS_SQL),
        recoveries=await rows(_RECOVERIES_SQL),
    )


_LATEST_SQL = """
    SELECT coalesce(max(sequence), 0) AS sequence
    FROM (
        SELECT sequence FROM transitions
        UNION ALL SELECT sequence FROM trusted
        UNION ALL SELECT sequence FROM recoveries
        UNION ALL SELECT sequence FROM retractions
    )
"""

_OFFSETS_SQL = "SELECT topic, partition, next FROM offsets WHERE topic <> 'outbox' ORDER BY ALL"

_RETRACTED_SQL = "SELECT coalesce(max(sequence), 0) AS sequence FROM retractions"

_WITHDRAWN = """
    SELECT episode_id FROM transitions
    WHERE sequence <= {as_of} AND principal IN (SELECT principal FROM retractions WHERE sequence <= {retracted_as_of})
"""

_STEP_COLUMNS = "episode_id, task_id, step, messages, action, observation, actor_kind, adapter, principal"

_STEPS_SQL = f"""
    SELECT {_STEP_COLUMNS}
    FROM transitions
    SEMI JOIN (
        SELECT episode_id FROM trusted WHERE split = 'train' AND sequence <= {{as_of}}
        QUALIFY row_number() OVER (PARTITION BY principal ORDER BY sequence DESC) <= {{most_per_principal}}
    ) USING (episode_id)
    ANTI JOIN ({_WITHDRAWN}) USING (episode_id)
    WHERE origin = 'production' AND sequence <= {{as_of}}
    ORDER BY episode_id, step
"""

_BRANCHES_SQL = """
    SELECT DISTINCT ON (transition_id) episode_id, step, action, observation, source, fidelity
    FROM transitions
    WHERE origin = 'branch' AND sequence <= {as_of}
    ORDER BY episode_id, step, transition_id
"""

_RECOVERIES_SQL = f"""
    SELECT DISTINCT ON (recovery_id) recovery_id, episode_id, left_at, steps, adapter
    FROM (
        FROM recoveries WHERE sequence <= {{as_of}}
        QUALIFY row_number() OVER (PARTITION BY principal ORDER BY sequence DESC) <= {{most_per_principal}}
    )
    ANTI JOIN ({_WITHDRAWN}) USING (episode_id)
    ANTI JOIN (SELECT episode_id FROM flags WHERE sequence <= {{as_of}}) USING (episode_id)
    ORDER BY recovery_id
"""

_BEGINNINGS_SQL = f"""
    SELECT {_STEP_COLUMNS}
    FROM transitions
    SEMI JOIN (SELECT episode_id FROM recoveries WHERE sequence <= {{as_of}}) USING (episode_id)
    WHERE origin = 'production' AND sequence <= {{as_of}}
    ORDER BY episode_id, step
"""
