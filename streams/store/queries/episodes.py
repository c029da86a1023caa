"""Every episode with its state and why, as the judge's decisions tell it; and the parts of one episode."""

from collections.abc import Mapping

from streams.branch_events import NO_SANDBOX
from streams.store.queries.branches import LACKED_SANDBOX, STANDING_ATTEMPTS, STANDING_BRANCHES
from streams.store.queries.retractions import REVOKED_EPISODES
from streams.store.queries.trust import decisions, standing_outcomes
from streams.trust.rules import MODEL_JUDGE

NO_OUTCOME = "no outcome yet"
ENDED_WITHOUT = "it ended without an outcome"
LATER_STEPS = "later steps wait for an outcome of their own"


# What else is told of an episode's steps; null where only outcomes are stored.
_COLUMNS = {"steps": "count(DISTINCT step)"} | {
    name: f"any_value({name})" for name in ("environment", "task_id", "principal", "actor_kind", "adapter")
}


def _states(which: str, columns: Mapping[str, str]) -> str:
    """The state of each episode with a step or an outcome, of `which` rows of the tables; `touched` is a sequence.

    `columns` are aggregates over its steps.
    """
    return f"""
    WITH decided AS ({decisions(which)}),
    stored AS (
        SELECT
            episode_id, bool_or(done) AS ended, max(sequence) AS last {", " if columns else ""}
            {", ".join(f"{aggregate} AS {name}" for name, aggregate in columns.items())}
        FROM transitions
        WHERE origin = 'production' AND {which}
        GROUP BY episode_id
    ),
    later AS (
        SELECT episode_id, true AS goes_on
        FROM transitions JOIN (
            SELECT episode_id, decided.sequence AS decided_at FROM decided JOIN stored USING (episode_id)
            WHERE state = 'trusted' AND last > decided.sequence
        ) USING (episode_id)
        WHERE origin = 'production'
        GROUP BY episode_id HAVING max(step) FILTER (sequence < decided_at) < max(step)
    ),
    judged AS (
        SELECT episode_id, count(*) AS outcomes, max(sequence) AS outcome_at FROM outcomes WHERE {which} GROUP BY ALL
    ),
    reasons AS (
        SELECT episode_id, sequence, reason, NULL AS split FROM untrusted WHERE {which}
        UNION ALL SELECT episode_id, sequence, reason, NULL FROM undecided WHERE {which}
        UNION ALL SELECT episode_id, sequence, NULL, split FROM trusted WHERE {which}
        UNION ALL SELECT episode_id, sequence, NULL, split FROM failed WHERE {which}
    ),
    flagged AS (SELECT episode_id, min_by(reason, sequence) AS flag FROM flags WHERE {which} GROUP BY ALL),
    revoked AS (SELECT DISTINCT episode_id, true AS is_revoked FROM ({REVOKED_EPISODES}))
    SELECT
        episode_id,
        CASE
            WHEN is_revoked THEN 'revoked'
            WHEN flag IS NOT NULL AND decided.state IS DISTINCT FROM 'untrusted' THEN 'flagged'
            WHEN split <> 'train' THEN 'held-out'
            ELSE coalesce(decided.state, 'open')
        END AS state,
        CASE
            WHEN is_revoked THEN 'a principal that took part revoked consent'
            WHEN flag IS NOT NULL AND decided.state IS DISTINCT FROM 'untrusted' THEN flag
            WHEN split <> 'train' THEN
                if(decided.state = 'failed', 'failed', 'trusted') || ', and its task is kept for gates: ' || split
            WHEN decided.state IS NULL THEN if(ended, '{ENDED_WITHOUT}', '{NO_OUTCOME}')
            WHEN decided.state = 'trusted' AND goes_on THEN '{LATER_STEPS}'
            ELSE coalesce(reason, '')
        END AS reason,
        coalesce(outcomes, 0) AS outcomes,
        {" ".join(f"{name}," for name in columns)}
        greatest(coalesce(last, 0), coalesce(outcome_at, 0)) AS touched
    FROM stored FULL JOIN judged USING (episode_id)
    LEFT JOIN decided USING (episode_id)
    LEFT JOIN reasons USING (episode_id, sequence)
    LEFT JOIN later USING (episode_id)
    LEFT JOIN flagged USING (episode_id)
    LEFT JOIN revoked USING (episode_id)
    """


NEWEST_EPISODES = f"""
    FROM ({_states("true", _COLUMNS)}) WHERE $state IS NULL OR state = $state ORDER BY touched DESC LIMIT $limit
"""

EPISODE = _states("episode_id = $episode_id", _COLUMNS)

# Ids that begin with $prefix, one more than are told.
EPISODES_BY_PREFIX = """
    SELECT DISTINCT episode_id
    FROM (SELECT episode_id FROM transitions WHERE origin = 'production' UNION SELECT episode_id FROM outcomes)
    WHERE starts_with(episode_id, $prefix) ORDER BY episode_id LIMIT $limit
"""

# Without the particulars that some reasons end with, so that there are few.
EPISODES_BY_STATE = f"""
    SELECT state, split_part(reason, ': ', 1) AS name, count(*) AS total
    FROM ({_states("true", {})}) GROUP BY ALL ORDER BY state, total DESC, name
"""

# States of trusted episodes, and failed episodes, that could not be restored.
DROPPED_BY_REASON = f"""
    SELECT
        if({LACKED_SANDBOX}, '{NO_SANDBOX}', regexp_replace(split_part(reason, ': ', 1), '[0-9]+', 'N', 'g')) AS name,
        count(*) AS total
    FROM (
        SELECT reason FROM ({STANDING_BRANCHES}) WHERE fidelity = 'dropped'
        UNION ALL SELECT reason FROM ({STANDING_ATTEMPTS}) WHERE fidelity = 'dropped'
    )
    GROUP BY ALL ORDER BY total DESC, name LIMIT 20
"""

# Episodes whose last step was recorded before $before, in seconds since 1970, and of which no outcome came.
WITHOUT_OUTCOME_SINCE = """
    SELECT count(*) AS episodes
    FROM (
        SELECT episode_id FROM events WHERE kind = 'step' GROUP BY episode_id HAVING epoch(max(recorded_at)) < $before
    )
    ANTI JOIN outcomes USING (episode_id)
"""

TIMES_OF_EPISODES = """
    SELECT episode_id, max(recorded_at) AS last_at, max(agent) AS agent
    FROM events WHERE episode_id IN $episode_ids GROUP BY episode_id
"""

STEPS_OF_EPISODE = """
    SELECT transitions.*, agent, recorded_at
    FROM transitions
    LEFT JOIN (SELECT event_id AS transition_id, agent, recorded_at FROM events WHERE episode_id = $episode_id)
        USING (transition_id)
    WHERE origin = 'production' AND episode_id = $episode_id
    ORDER BY step, sequence
"""

OUTCOMES_OF_EPISODE = f"""
    SELECT outcomes.*, counted.sequence IS NOT NULL AS counts
    FROM outcomes
    LEFT JOIN ({standing_outcomes("episode_id = $episode_id")}) AS counted ON counted.sequence = outcomes.sequence
    WHERE outcomes.episode_id = $episode_id
    ORDER BY outcomes.recorded_at, outcomes.sequence
"""

DECISIONS_ON_EPISODE = """
    SELECT sequence, state, reason
    FROM (
        SELECT episode_id, sequence, 'trusted' AS state, '' AS reason FROM trusted
        UNION ALL SELECT episode_id, sequence, 'failed', '' FROM failed
        UNION ALL SELECT episode_id, sequence, 'untrusted', reason FROM untrusted
        UNION ALL SELECT episode_id, sequence, 'undecided', reason FROM undecided
        UNION ALL SELECT episode_id, sequence, 'flagged', reason FROM flags
    )
    WHERE episode_id = $episode_id ORDER BY sequence
"""

BRANCHES_OF_EPISODE = f"""
    SELECT step, requested, executed, fidelity, reason FROM ({STANDING_BRANCHES}) WHERE episode_id = $episode_id
    ORDER BY step, sequence
"""

RECOVERY_OF_EPISODE = """
    SELECT attempts, recovered, fidelity, reason FROM recovery_attempts WHERE episode_id = $episode_id
    ORDER BY sequence DESC LIMIT 1
"""

RECOVERIES_OF_EPISODE = "SELECT recovery_id FROM recoveries WHERE episode_id = $episode_id"

# Of the outcomes that count, what each model says and what all others say of the same episode.
AGREEMENT_OF_MODELS = f"""
    WITH standing AS ({standing_outcomes()}),
    verified AS (
        SELECT episode_id, bool_and(success) AS verified
        FROM standing WHERE NOT starts_with(verifier, '{MODEL_JUDGE}') GROUP BY episode_id
    )
    SELECT
        verifier,
        count(*) FILTER (success AND verified) AS both_success,
        count(*) FILTER (success AND NOT verified) AS only_judge,
        count(*) FILTER (NOT success AND verified) AS only_verified,
        count(*) FILTER (NOT success AND NOT verified) AS both_failure
    FROM standing LEFT JOIN verified USING (episode_id)
    WHERE starts_with(verifier, '{MODEL_JUDGE}')
    GROUP BY verifier ORDER BY verifier
"""
