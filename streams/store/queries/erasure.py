"""What an erasure leaves out of a store's new file, and what stays to keep it from coming back."""

from streams.store.tables import TABLES

# Prepared in the new file: the episodes that are erased. `old` is the store as it is.
GONE = """
    CREATE TEMP TABLE gone AS
    SELECT DISTINCT episode_id FROM (
        SELECT episode_id FROM old.transitions WHERE principal = $principal
        UNION ALL SELECT unnest($episodes::VARCHAR[])
        UNION ALL SELECT episode_id FROM old.erased
    ) WHERE episode_id IS NOT NULL
"""

_OF_EPISODE = "coalesce(episode_id IN (FROM gone), false)"
_LEFT_OUT = {name: _OF_EPISODE for name, schema in TABLES.items() if "episode_id" in schema.names} | {
    "erased": "false",
    "quarantined": "coalesce(principal = getvariable('principal'), false)",
    # A branch request has the episode's messages; its key is the episode's id.
    "outbox": "coalesce(key IN (SELECT encode(episode_id) FROM gone), false)",
}


def kept(table: str) -> str:
    """The rows of a table that stay."""
    return f"SELECT * FROM old.{table} WHERE NOT {_LEFT_OUT.get(table, 'false')}"


# Ids and positions alone: without them a record that comes again would be stored again.
NOTE_ERASED = """
    INSERT INTO erased BY NAME
    SELECT sequence, $erasure AS erasure_id, episode_id, event_id, topic, "partition", "offset"
        FROM old.events WHERE coalesce(episode_id IN (FROM gone), false)
    UNION ALL BY NAME
    SELECT sequence, $erasure AS erasure_id, episode_id, result_id AS event_id
        FROM old.branches WHERE episode_id IN (FROM gone)
    UNION ALL BY NAME
    SELECT sequence, $erasure AS erasure_id, episode_id, result_id AS event_id
        FROM old.recovery_attempts WHERE episode_id IN (FROM gone)
    UNION ALL BY NAME
    SELECT sequence, $erasure AS erasure_id, topic, "partition", "offset"
        FROM old.quarantined WHERE principal = getvariable('principal')
"""
NOTE_SUBJECT = """
    INSERT INTO erased BY NAME SELECT $sequence AS sequence, $erasure AS erasure_id, $principal AS principal
"""
# Of an episode that was asked for, and of which the store has nothing yet.
NOTE_EPISODE = """
    INSERT INTO erased BY NAME SELECT $sequence AS sequence, $erasure AS erasure_id, $episode AS episode_id
"""

ERASED = "SELECT DISTINCT principal, episode_id FROM erased"
IS_ERASED = "SELECT 1 FROM erased WHERE erasure_id = $erasure LIMIT 1"
GONE_EPISODES = "SELECT episode_id FROM gone ORDER BY episode_id"
GONE_TRAJECTORIES = f"SELECT recovery_id FROM old.recoveries WHERE {_OF_EPISODE} ORDER BY recovery_id"
RETAINED = """
    SELECT topic, "partition", min("offset") AS first, max("offset") AS last, count(*) AS records
    FROM erased WHERE topic IS NOT NULL AND erasure_id = $erasure GROUP BY ALL ORDER BY ALL
"""
# What dead-letter records of theirs are known by.
ERASED_NAMES = 'SELECT DISTINCT principal, episode_id, topic, "partition", "offset" FROM erased'
