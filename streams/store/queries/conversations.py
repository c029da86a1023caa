"""Production episodes as of a sequence, as conversations; less those of principals that revoked consent."""

from streams.store.queries.retractions import REVOKED_EPISODES_AS_OF
from streams.store.queries.trust import TRUSTED_AS_OF, standing_outcomes

# `judged_at` and `split` are null where an episode is not trusted. Where $trusted is false the others are there too;
# where $split is null those of every split are.
_EPISODES = f"""
    FROM (
        SELECT episode_id, min(sequence) AS first, max(sequence) AS last
        FROM transitions
        WHERE origin = 'production' AND sequence <= $as_of
        GROUP BY episode_id
    )
    LEFT JOIN (SELECT episode_id, sequence AS judged_at, split FROM ({TRUSTED_AS_OF})) USING (episode_id)
    WHERE (judged_at IS NOT NULL OR NOT $trusted) AND ($split IS NULL OR split = $split)
"""
_REVOKED = f"episode_id IN ({REVOKED_EPISODES_AS_OF})"

COUNT_OF_EPISODES = f"""
    SELECT count(*) FILTER (NOT {_REVOKED}) AS episodes, count(*) - episodes AS revoked {_EPISODES}
"""

EPISODES_AFTER = f"""
    SELECT episode_id, first, last, judged_at, split {_EPISODES} AND NOT {_REVOKED} AND first > $after
    ORDER BY first
    LIMIT $limit
"""

# Of the episodes, which begin at the sequence $first or later and end at $last or earlier; what came twice, once.
STEPS_OF_EPISODES = """
    SELECT DISTINCT ON (episode_id, step)
        sequence, episode_id, step, environment, task_id, seed, state, tools, messages, action, observation, done,
        actor_kind, adapter, principal, agent, recorded_at
    FROM transitions
    LEFT JOIN (SELECT event_id AS transition_id, agent, recorded_at FROM events WHERE episode_id IN $episode_ids)
        USING (transition_id)
    WHERE origin = 'production' AND episode_id IN $episode_ids AND sequence BETWEEN $first AND $last
    ORDER BY episode_id, step, sequence
"""

OUTCOMES_OF_EPISODES = f"""
    SELECT episode_id, bool_and(success) AS success, max_by(score, (recorded_at, sequence)) AS score
    FROM ({standing_outcomes("sequence <= $as_of AND episode_id IN $episode_ids")})
    GROUP BY episode_id
"""

ENVIRONMENTS = """
    SELECT environment, count(DISTINCT episode_id) AS episodes
    FROM transitions
    WHERE origin = 'production'
    GROUP BY environment
    ORDER BY episodes DESC, environment
"""

NEWEST_EPISODES = f"""
    SELECT episode_id, min(sequence) AS first, max(sequence) AS last
    FROM transitions
    WHERE origin = 'production' AND environment = $environment AND sequence <= $as_of AND NOT {_REVOKED}
    GROUP BY episode_id
    ORDER BY first DESC
    LIMIT $limit
"""
