"""Queries of the store's writer. `wanted` is a table of ids that it registers."""

from streams.store.queries.retractions import REVOKED_EPISODES, REVOKED_EPISODES_SINCE
from streams.store.tables import TABLES

_ENDS = " UNION ALL ".join(
    f"SELECT max(sequence) AS last FROM {name}" for name, schema in TABLES.items() if "sequence" in schema.names
)


def _newest(table: str, columns: str) -> str:
    """The columns, aggregated over the rows of each wanted episode in a table."""
    return f"""
    SELECT episode_id, {columns} FROM {table}
    WHERE sequence >= $start AND episode_id IN (FROM wanted)
    GROUP BY episode_id
    """


NEXT_SEQUENCE = f"SELECT coalesce(max(last), 0) + 1 AS sequence FROM ({_ENDS})"

OFFSETS = "SELECT topic, partition, next FROM offsets"
ADD_OFFSET = "INSERT INTO offsets (topic, partition, next) VALUES ($topic, $partition, $next)"
SET_OFFSET = "UPDATE offsets SET next = $next WHERE topic = $topic AND partition = $partition"

LAST_CLUSTER = "SELECT cluster_id FROM logs ORDER BY sequence DESC LIMIT 1"

# The ids of everything that is stored once.
STORED_IDS = """
    SELECT event_id FROM events
    UNION ALL SELECT result_id FROM branches
    UNION ALL SELECT result_id FROM recovery_attempts
"""
WANTED_STORED_IDS = f"SELECT event_id FROM ({STORED_IDS}) WHERE event_id IN (FROM wanted)"

STORED_EPISODES = "SELECT DISTINCT episode_id FROM events WHERE kind <> 'retraction'"

RECENTLY_TRUSTED = """
    SELECT principal, likeness, trusted_at FROM trusted WHERE trusted_at > $since ORDER BY sequence
"""

# Episodes with an outcome: steps of theirs that come later are looked at.
JUDGED_EPISODES = "SELECT DISTINCT episode_id FROM outcomes"

# Trusted and failed episodes of which something came after they were judged, or that other rules trusted: an older
# version, or other settings, may have left them as they were.
DECIDED_TO_JUDGE_AGAIN = """
    WITH decided AS (
        SELECT episode_id, max(sequence) AS decided_at
        FROM (FROM (SELECT episode_id, sequence FROM trusted) UNION ALL SELECT episode_id, sequence FROM failed)
        WHERE episode_id NOT IN (SELECT episode_id FROM untrusted)
        GROUP BY episode_id
    )
    SELECT episode_id FROM decided JOIN transitions USING (episode_id)
        WHERE origin = 'production' AND sequence > decided_at
    UNION SELECT episode_id FROM decided JOIN flags USING (episode_id)
    UNION SELECT episode_id FROM trusted JOIN outcomes USING (episode_id)
        WHERE NOT success AND episode_id IN (SELECT episode_id FROM decided)
"""

PRINCIPALS_OF_WANTED = """
    SELECT episode_id, any_value(principal) AS principal
    FROM transitions
    WHERE sequence >= $start AND origin = 'production' AND episode_id IN (FROM wanted)
    GROUP BY episode_id
"""

OUTBOX_FROM = "SELECT sequence, topic, key, value FROM outbox WHERE sequence >= $start ORDER BY sequence LIMIT $limit"

# The newest request of an episode counts: it has the most steps.
UNANSWERED_REQUESTS = f"""
    SELECT DISTINCT ON (key) topic, key, value
    FROM outbox
    WHERE topic = $topic
      AND key NOT IN (SELECT encode(episode_id) FROM branches)
      AND key NOT IN (SELECT encode(episode_id) FROM recovery_attempts)
      AND key NOT IN (SELECT encode(episode_id) FROM ({REVOKED_EPISODES}))
      AND key NOT IN (SELECT encode(episode_id) FROM untrusted)
    ORDER BY key, sequence DESC
"""

# Of the wanted episodes with an outcome: what was decided on them, and when. None has a row before $start.
OUTCOMES_TO_JUDGE = f"""
    WITH judged AS (
        SELECT episode_id, list(success) AS successes, max(sequence) AS outcome_at
        FROM outcomes
        WHERE sequence >= $start AND episode_id IN (FROM wanted)
        GROUP BY episode_id
    )
    SELECT episode_id, successes, outcome_at, trusted_at, failed_at, flag
    FROM judged
    LEFT JOIN ({_newest("trusted", "max(sequence) AS trusted_at")}) USING (episode_id)
    LEFT JOIN ({_newest("failed", "max(sequence) AS failed_at")}) USING (episode_id)
    LEFT JOIN ({_newest("flags", "min_by(reason, sequence) AS flag")}) USING (episode_id)
    WHERE episode_id NOT IN (SELECT episode_id FROM untrusted WHERE sequence >= $start)
      AND episode_id NOT IN ({REVOKED_EPISODES_SINCE})
"""

STEPS_OF_WANTED = """
    SELECT
        episode_id, step, environment, task_id, seed, messages, action, observation, tools, actor_kind, principal, done,
        sequence
    FROM transitions
    WHERE sequence >= $start AND origin = 'production' AND episode_id IN (FROM wanted)
    ORDER BY episode_id, step, sequence
"""


def count_of(query: str) -> str:
    """Return the query that counts the rows of a query, as `count`."""
    return f"SELECT count(*) AS count FROM ({query})"
