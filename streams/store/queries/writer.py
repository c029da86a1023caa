"""Queries of the store's writer. `wanted` is a table of ids that it registers."""

from streams.store.queries.retractions import REVOKED_EPISODES, REVOKED_EPISODES_SINCE
from streams.store.tables import TABLES

_ENDS = " UNION ALL ".join(
    f"SELECT max(sequence) AS last FROM {name}" for name, schema in TABLES.items() if "sequence" in schema.names
)
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

PRINCIPALS_OF_WANTED = """
    SELECT episode_id, any_value(principal) AS principal
    FROM transitions
    WHERE sequence >= $start AND origin = 'production' AND episode_id IN (FROM wanted)
    GROUP BY episode_id
"""

OUTBOX_FROM = "SELECT sequence, topic, key, value FROM outbox WHERE sequence >= $start ORDER BY sequence LIMIT $limit"

# An episode that failed first may be trusted later: the newest request counts.
UNANSWERED_REQUESTS = f"""
    SELECT DISTINCT ON (key) topic, key, value
    FROM outbox
    WHERE topic = $topic
      AND key NOT IN (SELECT encode(episode_id) FROM branches)
      AND key NOT IN (SELECT encode(episode_id) FROM recovery_attempts)
      AND key NOT IN (SELECT encode(episode_id) FROM ({REVOKED_EPISODES}))
    ORDER BY key, sequence DESC
"""

# Of wanted episodes that nothing was decided on yet; none of them has a row before $start.
OUTCOMES_TO_JUDGE = f"""
    SELECT episode_id, list(success) AS successes
    FROM outcomes
    WHERE sequence >= $start
      AND episode_id IN (FROM wanted)
      AND episode_id NOT IN (SELECT episode_id FROM trusted WHERE sequence >= $start)
      AND episode_id NOT IN (SELECT episode_id FROM failed WHERE sequence >= $start)
      AND episode_id NOT IN (SELECT episode_id FROM flags WHERE sequence >= $start)
      AND episode_id NOT IN ({REVOKED_EPISODES_SINCE})
    GROUP BY episode_id
"""

STEPS_OF_WANTED = """
    SELECT
        episode_id, step, environment, task_id, seed, messages, action, reasoning, observation, actor_kind, principal
    FROM transitions
    WHERE sequence >= $start AND origin = 'production' AND episode_id IN (FROM wanted)
    ORDER BY episode_id, step, sequence
"""


def count_of(query: str) -> str:
    """Return the query that counts the rows of a query, as `count`."""
    return f"SELECT count(*) AS count FROM ({query})"
