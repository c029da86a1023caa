"""The rows of a training set as of a sequence, less the episodes of principals that revoked consent.

Of each principal the newest are taken, and beside them those of the trajectories $older: all else that keeps an episode
out of a training set holds for these, too. `TrainingRows` has the queries for all, and for the members of one group.
"""

from dataclasses import dataclass

from streams.store.queries.groups import within_group
from streams.store.queries.retractions import REVOKED_EPISODES_AS_OF
from streams.store.queries.trust import FAILED_AS_OF, TRUSTED_AS_OF

LATEST_SEQUENCE = """
    SELECT coalesce(max(sequence), 0) AS sequence
    FROM (
        SELECT sequence FROM transitions
        UNION ALL SELECT sequence FROM trusted
        UNION ALL SELECT sequence FROM failed
        UNION ALL SELECT sequence FROM untrusted
        UNION ALL SELECT sequence FROM undecided
        UNION ALL SELECT sequence FROM flags
        UNION ALL SELECT sequence FROM recoveries
        UNION ALL SELECT sequence FROM retractions
        UNION ALL SELECT sequence FROM practised
    )
"""

OFFSETS_OF_PARTITIONS = """
    SELECT topic, partition, next FROM offsets WHERE topic NOT IN ('outbox', 'sequence') ORDER BY ALL
"""


def among_older(trajectory: str) -> str:
    """The condition that the column `trajectory` is one of the trajectories $older."""
    return f"{trajectory} IN (SELECT unnest($older::VARCHAR[]))"


_STEP_COLUMNS = "episode_id, task_id, step, messages, action, observation, tools, actor_kind, adapter, principal"


def _steps_of(episodes: str) -> str:
    """The steps that were judged, without those that later events added; what came twice, once."""
    return f"""
    SELECT DISTINCT ON (episode_id, step) {_STEP_COLUMNS}
    FROM transitions
    JOIN ({episodes}) USING (episode_id)
    ANTI JOIN ({REVOKED_EPISODES_AS_OF}) USING (episode_id)
    WHERE origin = 'production' AND sequence < judged_at
    ORDER BY episode_id, step, sequence
    """


@dataclass(frozen=True, slots=True)
class TrainingRows:
    """The queries for the rows of a training set: `FOR_ALL`, or `OF_GROUP`, which takes a group's parameters too."""

    trusted_steps: str
    held_out_steps: str
    branches: str
    recoveries: str
    recovered_steps: str


def _training_rows(within: str) -> TrainingRows:
    judged = f"""
    SELECT episode_id, sequence AS judged_at FROM ({TRUSTED_AS_OF}) {within} WHERE split = '{{split}}'
    QUALIFY row_number() OVER (PARTITION BY principal ORDER BY sequence DESC) <= $most_per_principal
    """
    return TrainingRows(
        trusted_steps=_steps_of(f"{judged.format(split='train')} OR {among_older('episode_id')}"),
        # Of held-out tasks, the newest episodes.
        held_out_steps=_steps_of(
            f"FROM ({judged.format(split='selection')}) ORDER BY judged_at DESC LIMIT $most_episodes"
        ),
        # A state that was branched twice has its alternatives once.
        branches=f"""
    SELECT DISTINCT ON (transition_id) episode_id, step, action, observation, source, fidelity, score, done
    FROM transitions {within}
    WHERE origin = 'branch' AND sequence <= $as_of
    ORDER BY episode_id, step, transition_id
    """,
        recoveries=f"""
    SELECT DISTINCT ON (recovery_id) recovery_id, episode_id, left_at, steps, adapter
    FROM (
        FROM recoveries SEMI JOIN ({FAILED_AS_OF}) USING (episode_id) {within}
        WHERE sequence <= $as_of
        QUALIFY row_number() OVER (PARTITION BY principal ORDER BY sequence DESC) <= $most_per_principal
            OR {among_older("recovery_id")}
    )
    ANTI JOIN ({REVOKED_EPISODES_AS_OF}) USING (episode_id)
    ANTI JOIN (SELECT episode_id FROM flags WHERE sequence <= $as_of) USING (episode_id)
    ORDER BY recovery_id
    """,
        recovered_steps=f"""
    SELECT DISTINCT ON (episode_id, step) {_STEP_COLUMNS}
    FROM transitions
    SEMI JOIN (SELECT episode_id FROM recoveries WHERE sequence <= $as_of) USING (episode_id)
    JOIN (SELECT episode_id, sequence AS judged_at FROM ({FAILED_AS_OF})) USING (episode_id) {within}
    WHERE origin = 'production' AND sequence < judged_at
    ORDER BY episode_id, step, sequence
    """,
    )


FOR_ALL = _training_rows("")
OF_GROUP = _training_rows(within_group("sequence <= $as_of"))
