"""The outcomes of a canary's episodes, by the names of the adapters that answered them."""

from streams.store.queries.retractions import REVOKED_EPISODES
from streams.store.queries.trust import standing_outcomes
from streams.trust.rules import MODEL_JUDGE

# The episodes that began since $since, in seconds since 1970, and whose every step one side answered; $champion and
# $candidate list the names of their adapters. Episodes that the gateway cannot tell apart are one draw of the canary,
# and so one row: the one that was judged first. `success` is null where no outcome came; a model's opinion is none.
CANARY_EPISODES = f"""
    WITH answered AS (
        SELECT
            transitions.episode_id,
            bool_or(adapter IN $candidate) AS candidate,
            coalesce(string_split(min_by(receipt, step), '.')[-1], transitions.episode_id) AS unit
        FROM transitions JOIN events ON events.event_id = transitions.transition_id
        WHERE origin = 'production' AND actor_kind = 'policy'
        GROUP BY transitions.episode_id
        HAVING epoch(min(events.recorded_at)) >= $since
            AND (bool_and(adapter IN $candidate) OR bool_and(adapter IN $champion))
    ),
    verified AS (
        SELECT episode_id, bool_and(success) AS success
        FROM ({standing_outcomes(f"NOT starts_with(verifier, '{MODEL_JUDGE}')")}) GROUP BY episode_id
    ),
    came AS (
        SELECT episode_id, min(sequence) AS judged_at
        FROM outcomes WHERE NOT starts_with(verifier, '{MODEL_JUDGE}') GROUP BY episode_id
    )
    SELECT candidate, success
    FROM answered
    LEFT JOIN verified USING (episode_id)
    LEFT JOIN came USING (episode_id)
    ANTI JOIN ({REVOKED_EPISODES}) AS revoked USING (episode_id)
    QUALIFY row_number() OVER (PARTITION BY unit ORDER BY judged_at NULLS LAST, episode_id) = 1
    ORDER BY judged_at NULLS LAST
"""
