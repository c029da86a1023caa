"""Principals that revoked consent, their episodes, and what became of a retraction that was published."""


def _revoked(transitions: str = "true", retractions: str = "true") -> str:
    """The episodes in which a principal took part that revoked consent: nothing may learn from them any more."""
    return f"""
    SELECT episode_id FROM transitions
    WHERE {transitions} AND principal IN (SELECT principal FROM retractions WHERE {retractions})
    """


REVOKED_EPISODES = _revoked()

# Of those that have no row before the sequence $start.
REVOKED_EPISODES_SINCE = _revoked("sequence >= $start")

REVOKED_EPISODES_AS_OF = _revoked("sequence <= $as_of", "sequence <= $retracted_as_of")

LATEST_RETRACTION = "SELECT coalesce(max(sequence), 0) AS sequence FROM retractions"

# A principal that revoked several times is forgotten since the first.
REVOKED_PRINCIPALS = """
    SELECT principal, min_by(event_id, sequence) AS event_id
    FROM retractions
    GROUP BY principal
    ORDER BY min(sequence)
"""

RETRACTIONS_AFTER = """
    SELECT count(*) AS count FROM retractions WHERE sequence > $sequence AND event_id IN $event_ids
"""

EPISODES_OF_PRINCIPAL = """
    SELECT count(DISTINCT episode_id) AS count FROM transitions WHERE principal = $principal
"""

STORED_RETRACTION = "SELECT sequence FROM retractions WHERE event_id = $event_id"

REASON_OF_REFUSAL = """
    SELECT reason FROM quarantined WHERE topic = $topic AND "partition" = $partition AND "offset" = $offset
    UNION ALL
    SELECT error FROM dead_letters WHERE topic = $topic AND "partition" = $partition AND "offset" = $offset
"""

# What snapshots call the episodes of a principal, or those of the ids $episodes, and what was recovered from them.
TRAJECTORIES_OF = """
    WITH wanted AS (
        SELECT DISTINCT episode_id FROM (
            SELECT episode_id FROM transitions WHERE principal = $principal
            UNION ALL SELECT unnest($episodes::VARCHAR[])
        )
    )
    SELECT episode_id AS trajectory FROM wanted
    UNION ALL SELECT recovery_id FROM recoveries SEMI JOIN wanted USING (episode_id)
"""
