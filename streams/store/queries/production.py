"""Counts of production for operators: how the adapters that served lately did, and how far episodes come."""

from streams.store.queries.branches import STANDING_BRANCHES
from streams.store.queries.retractions import REVOKED_EPISODES
from streams.store.queries.trust import TRUSTED_NOW, standing_outcomes
from streams.trust.rules import MODEL_JUDGE

# Episodes that one adapter answered alone and that an outcome judged, by the name it served under. Models' opinions do
# not count. The names that answered last come first.
PRODUCTION_BY_ADAPTER = f"""
    WITH answered AS (
        SELECT episode_id, any_value(adapter) AS served, max(sequence) AS last
        FROM transitions
        WHERE origin = 'production' AND actor_kind = 'policy' AND adapter IS NOT NULL
        GROUP BY episode_id HAVING count(DISTINCT adapter) = 1
    ),
    verified AS (
        SELECT episode_id, bool_and(success) AS success
        FROM ({standing_outcomes(f"NOT starts_with(verifier, '{MODEL_JUDGE}')")}) GROUP BY episode_id
    )
    SELECT served, count(*) AS episodes, count(*) FILTER (success) AS successes
    FROM answered
    JOIN verified USING (episode_id)
    ANTI JOIN ({REVOKED_EPISODES}) AS revoked USING (episode_id)
    GROUP BY served ORDER BY max(last) DESC LIMIT 20
"""

# Practice is not among them: it begins behind the first three. `restored` are trusted episodes of which a state was
# brought back in a sandbox.
FUNNEL = f"""
    WITH steps AS (
        SELECT episode_id, bool_or(done) AS ended FROM transitions WHERE origin = 'production' GROUP BY episode_id
    ),
    practised AS (SELECT DISTINCT episode_id FROM transitions WHERE origin = 'practice'),
    judged AS (SELECT DISTINCT episode_id FROM outcomes ANTI JOIN practised USING (episode_id)),
    trusted AS (
        SELECT episode_id FROM ({TRUSTED_NOW})
        ANTI JOIN flags USING (episode_id)
        ANTI JOIN ({REVOKED_EPISODES}) AS revoked USING (episode_id)
        ANTI JOIN practised USING (episode_id)
        WHERE split = 'train'
    ),
    restored AS (SELECT DISTINCT episode_id FROM ({STANDING_BRANCHES}) WHERE fidelity <> 'dropped')
    SELECT
        (SELECT count(*) FROM (SELECT episode_id FROM steps WHERE ended UNION SELECT episode_id FROM judged)) AS ended,
        (SELECT count(*) FROM judged) AS judged,
        (SELECT count(*) FROM trusted) AS trusted,
        (SELECT count(*) FROM trusted SEMI JOIN restored USING (episode_id)) AS restored
"""
