"""Queries of the learner about whether a cycle is due, and of the demo about its counts."""

from streams.store.queries.branches import LACKED_SANDBOX, STANDING_ATTEMPTS, STANDING_BRANCHES
from streams.store.queries.groups import within_group
from streams.store.queries.retractions import REVOKED_EPISODES
from streams.store.queries.trust import FAILED_NOW, TRUSTED_NOW


def _learnable_episodes(within: str) -> str:
    """Trusted episodes of the train split: all, and those that came after the sequence $since."""
    return f"""
    SELECT count(*) AS learnable, count(*) FILTER (sequence > $since) AS new
    FROM ({TRUSTED_NOW}) ANTI JOIN ({REVOKED_EPISODES}) AS revoked USING (episode_id) {within}
    WHERE split = 'train'
    """


LEARNABLE_EPISODES = _learnable_episodes("")
LEARNABLE_EPISODES_OF_GROUP = _learnable_episodes(within_group())

_NOT_ASKED_AGAIN = f"""
    LEFT JOIN (SELECT decode(key) AS episode_id, max(sequence) AS asked_at FROM outbox GROUP BY ALL) USING (episode_id)
    WHERE NOT {LACKED_SANDBOX} OR sequence > coalesce(asked_at, 0)
"""


def _branching_state(within: str) -> str:
    """States of trusted episodes, and failed episodes: those that branch workers were asked about, and reported on."""
    return f"""
    WITH left_out AS ({REVOKED_EPISODES}),
    branched AS (FROM ({TRUSTED_NOW}) ANTI JOIN left_out USING (episode_id) {within} WHERE split = 'train'),
    resumed AS (FROM ({FAILED_NOW}) ANTI JOIN left_out USING (episode_id) {within} WHERE split = 'train')
    SELECT
        (SELECT count(*) FROM ({STANDING_BRANCHES}) SEMI JOIN branched USING (episode_id) {_NOT_ASKED_AGAIN})
            + (SELECT count(*) FROM ({STANDING_ATTEMPTS}) SEMI JOIN resumed USING (episode_id) {_NOT_ASKED_AGAIN})
            AS answered,
        (
            SELECT count(DISTINCT (episode_id, step))
            FROM transitions JOIN branched USING (episode_id)
            WHERE origin = 'production' AND transitions.sequence < branched.sequence
        )
            + (SELECT count(*) FROM resumed) AS asked
    """


BRANCHING_STATE = _branching_state("")
BRANCHING_STATE_OF_GROUP = _branching_state(within_group())

# Everything on a topic; `practice` of what is stored is Ratchet's own.
RECORDS_OF_TOPIC = """
    SELECT
        count(*) AS stored,
        count(*) FILTER (starts_with(kind, 'practice_')) AS practice,
        count(DISTINCT event_id) AS distinct_ids,
        (SELECT count(*) FROM duplicates WHERE topic = $topic) AS duplicates,
        (SELECT count(*) FROM dead_letters WHERE topic = $topic) AS dead_letters,
        (SELECT count(*) FROM quarantined WHERE topic = $topic) AS quarantined
    FROM events
    WHERE topic = $topic
"""

JUDGED_EPISODES = "SELECT count(DISTINCT episode_id) AS judged FROM outcomes"

# Of policies' episodes: their steps, those that are trusted, and the states and failed episodes that were tried again.
POLICY_EPISODES = f"""
    WITH
        steps AS (SELECT episode_id FROM transitions WHERE origin = 'production' AND actor_kind = 'policy'),
        own AS (SELECT DISTINCT episode_id FROM steps),
        tried AS (
            SELECT fidelity FROM ({STANDING_BRANCHES}) SEMI JOIN own USING (episode_id)
            UNION ALL
            SELECT fidelity FROM ({STANDING_ATTEMPTS}) SEMI JOIN own USING (episode_id)
        )
    SELECT
        (SELECT count(*) FROM steps) AS stored,
        (SELECT count(*) FROM own) AS episodes,
        (SELECT count(*) FROM ({TRUSTED_NOW}) SEMI JOIN own USING (episode_id)) AS trusted,
        (SELECT count(*) FROM tried WHERE fidelity <> 'dropped') AS branched,
        (SELECT count(*) FROM tried WHERE fidelity = 'dropped') AS mismatches
"""

# Who met the tasks in production, less those that revoked consent.
LABELS_OF_TASKS = f"""
    SELECT DISTINCT task_id, agent, principal
    FROM (
        FROM transitions
        WHERE origin = 'production' AND environment = $environment AND task_id IN $task_ids
    )
    ANTI JOIN ({REVOKED_EPISODES}) AS revoked USING (episode_id)
    LEFT JOIN (SELECT event_id AS transition_id, agent FROM events) USING (transition_id)
    ORDER BY ALL
"""
