"""What an erasure leaves out of a store's tables, and what stays to keep it from coming back.

`of` is the place of the tables as they are, "old." or "lake.".
"""

from streams.store.tables import TABLES

_OF_EPISODE = "coalesce(episode_id IN (FROM gone), false)"
_LEFT_OUT = {name: _OF_EPISODE for name, schema in TABLES.items() if "episode_id" in schema.names} | {
    "quarantined": "coalesce(principal = getvariable('principal'), false)",
    # A branch request has the episode's messages; its key is the episode's id.
    "outbox": "coalesce(key IN (SELECT encode(episode_id) FROM gone), false)",
}
# It has episode ids too, and those are there to stay.
del _LEFT_OUT["erased"]
# The tables of which rows are left out.
REWRITTEN = tuple(_LEFT_OUT)

IS_ERASED = "SELECT 1 FROM erased WHERE erasure_id = $erasure LIMIT 1"
ERASED = "SELECT DISTINCT principal, episode_id FROM erased"
# What dead-letter records of theirs are known by.
ERASED_NAMES = 'SELECT DISTINCT principal, episode_id, topic, "partition", "offset" FROM erased'
GONE_EPISODES = "SELECT episode_id FROM gone ORDER BY episode_id"


def gone(of: str) -> str:
    """Prepared first: a table of the episodes that are erased."""
    return f"""
        CREATE TEMP TABLE gone AS
        SELECT DISTINCT episode_id FROM (
            SELECT episode_id FROM {of}transitions WHERE principal = $principal
            UNION ALL SELECT unnest($episodes::VARCHAR[])
            UNION ALL SELECT episode_id FROM {of}erased
        ) WHERE episode_id IS NOT NULL
    """


def kept(table: str, of: str) -> str:
    """The rows of a table that stay."""
    return f"SELECT * FROM {of}{table} WHERE NOT {_LEFT_OUT.get(table, 'false')}"


def gone_trajectories(of: str) -> str:
    """The recoveries of the erased episodes."""
    return f"SELECT recovery_id FROM {of}recoveries WHERE {_OF_EPISODE} ORDER BY recovery_id"


def note_erased(of: str, erased: str) -> str:
    """Ids and positions alone go into the table `erased`: without them a record that comes again would be stored."""
    return f"""
        INSERT INTO {erased} BY NAME
        SELECT sequence, $erasure AS erasure_id, episode_id, event_id, topic, "partition", "offset"
            FROM {of}events WHERE coalesce(episode_id IN (FROM gone), false)
        UNION ALL BY NAME
        SELECT sequence, $erasure AS erasure_id, episode_id, result_id AS event_id
            FROM {of}branches WHERE episode_id IN (FROM gone)
        UNION ALL BY NAME
        SELECT sequence, $erasure AS erasure_id, episode_id, result_id AS event_id
            FROM {of}recovery_attempts WHERE episode_id IN (FROM gone)
        UNION ALL BY NAME
        SELECT sequence, $erasure AS erasure_id, topic, "partition", "offset"
            FROM {of}quarantined WHERE principal = getvariable('principal')
    """


def note_subject(erased: str) -> str:
    """The principal, or an episode that was asked for, of which the store may have nothing yet."""
    return f"""
        INSERT INTO {erased} BY NAME
        SELECT $sequence AS sequence, $erasure AS erasure_id, $principal AS principal, $episode AS episode_id
    """


def retained(erased: str) -> str:
    """The places in the log of what an erasure left out."""
    return f"""
        SELECT topic, "partition", min("offset") AS first, max("offset") AS last, count(*) AS records
        FROM {erased} WHERE topic IS NOT NULL AND erasure_id = $erasure GROUP BY ALL ORDER BY ALL
    """
