"""Queries of the learner about whether a cycle is due, and of the demo about its counts."""

from streams.store.queries.retractions import REVOKED_EPISODES

# Trusted episodes of the train split: all, and those that came after the sequence $since.
LEARNABLE_EPISODES = f"""
    SELECT count(*) AS learnable, count(*) FILTER (sequence > $since) AS new
    FROM trusted ANTI JOIN ({REVOKED_EPISODES}) AS revoked USING (episode_id)
    WHERE split = 'train'
"""

# States of trusted episodes, and failed episodes: those that branch workers were asked about, and reported on.
BRANCHING_STATE = f"""
    WITH revoked AS ({REVOKED_EPISODES})
    SELECT
        (SELECT count(*) FROM branches ANTI JOIN revoked USING (episode_id))
            + (SELECT count(*) FROM recovery_attempts ANTI JOIN revoked USING (episode_id)) AS answered,
        (SELECT count(*) FROM transitions ANTI JOIN revoked USING (episode_id)
            WHERE origin = 'production' AND episode_id IN (SELECT episode_id FROM trusted WHERE split = 'train'))
            + (SELECT count(*) FROM failed ANTI JOIN revoked USING (episode_id) WHERE split = 'train') AS asked
"""

RECORDS_OF_TOPIC = """
    SELECT
        count(*) AS stored,
        count(DISTINCT event_id) AS distinct_ids,
        (SELECT count(*) FROM duplicates WHERE topic = $topic) AS duplicates,
        (SELECT count(*) FROM dead_letters WHERE topic = $topic) AS dead_letters,
        (SELECT count(*) FROM quarantined WHERE topic = $topic) AS quarantined
    FROM events
    WHERE topic = $topic
"""
