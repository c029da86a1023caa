"""The rows of a training set as of a sequence, less the episodes of principals that revoked consent."""

from streams.store.queries.retractions import REVOKED_EPISODES_AS_OF

LATEST_SEQUENCE = """
    SELECT coalesce(max(sequence), 0) AS sequence
    FROM (
        SELECT sequence FROM transitions
        UNION ALL SELECT sequence FROM trusted
        UNION ALL SELECT sequence FROM recoveries
        UNION ALL SELECT sequence FROM retractions
    )
"""

OFFSETS_OF_PARTITIONS = "SELECT topic, partition, next FROM offsets WHERE topic <> 'outbox' ORDER BY ALL"

_STEP_COLUMNS = "episode_id, task_id, step, messages, action, reasoning, observation, actor_kind, adapter, principal"

TRUSTED_STEPS = f"""
    SELECT {_STEP_COLUMNS}
    FROM transitions
    SEMI JOIN (
        SELECT episode_id FROM trusted WHERE split = 'train' AND sequence <= $as_of
        QUALIFY row_number() OVER (PARTITION BY principal ORDER BY sequence DESC) <= $most_per_principal
    ) USING (episode_id)
    ANTI JOIN ({REVOKED_EPISODES_AS_OF}) USING (episode_id)
    WHERE origin = 'production' AND sequence <= $as_of
    ORDER BY episode_id, step
"""

# A state that was branched twice has its alternatives once.
BRANCHES = """
    SELECT DISTINCT ON (transition_id) episode_id, step, action, observation, source, fidelity
    FROM transitions
    WHERE origin = 'branch' AND sequence <= $as_of
    ORDER BY episode_id, step, transition_id
"""

RECOVERIES = f"""
    SELECT DISTINCT ON (recovery_id) recovery_id, episode_id, left_at, steps, adapter
    FROM (
        FROM recoveries WHERE sequence <= $as_of
        QUALIFY row_number() OVER (PARTITION BY principal ORDER BY sequence DESC) <= $most_per_principal
    )
    ANTI JOIN ({REVOKED_EPISODES_AS_OF}) USING (episode_id)
    ANTI JOIN (SELECT episode_id FROM flags WHERE sequence <= $as_of) USING (episode_id)
    ORDER BY recovery_id
"""

RECOVERED_STEPS = f"""
    SELECT {_STEP_COLUMNS}
    FROM transitions
    SEMI JOIN (SELECT episode_id FROM recoveries WHERE sequence <= $as_of) USING (episode_id)
    WHERE origin = 'production' AND sequence <= $as_of
    ORDER BY episode_id, step
"""
