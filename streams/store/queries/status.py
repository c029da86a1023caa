"""The counts of `GET /status`."""

from streams.store.queries.retractions import REVOKED_EPISODES
from streams.store.queries.trust import TRUSTED_NOW


def _by(column: str, table: str, total: str = "count(*)") -> str:
    return f"SELECT {column} AS name, {total} AS total FROM {table} GROUP BY ALL ORDER BY ALL"


EVENTS_BY_KIND = _by("kind", "events")
TRANSITIONS_BY_ORIGIN = _by("origin", "transitions")
TRUSTED_BY_SPLIT = _by("split", f"({TRUSTED_NOW})")
REDACTIONS_BY_KIND = _by("kind", "redactions", "sum(count)::BIGINT")
# Producers may flag episodes for reasons of their own, so only the most frequent are told.
FLAGGED_BY_REASON = """
    SELECT reason AS name, count(DISTINCT episode_id) AS total
    FROM flags GROUP BY ALL ORDER BY total DESC, name LIMIT 20
"""
FAILURES_BY_KIND = _by("fate", "fatalities")

# Episodes with a success that no other count speaks of: the first of the reasons that the judge would find. Those that
# wait may still become trusted.
NOT_TRUSTED_BY_REASON = f"""
    WITH judged AS (
        SELECT episode_id, bool_and(success) AS agreed, max(sequence) AS outcome_at
        FROM outcomes
        WHERE episode_id NOT IN (SELECT episode_id FROM trusted)
          AND episode_id NOT IN (SELECT episode_id FROM flags)
          AND episode_id NOT IN (SELECT episode_id FROM untrusted)
          AND episode_id NOT IN ({REVOKED_EPISODES})
        GROUP BY episode_id
        HAVING bool_or(success)
    ),
    steps AS (
        SELECT
            *,
            sequence < outcome_at AS before,
            step > coalesce(max(step) FILTER (sequence < outcome_at) OVER (PARTITION BY episode_id), -1) AS after
        FROM transitions JOIN judged USING (episode_id)
        WHERE origin = 'production'
    ),
    known AS (
        SELECT
            episode_id,
            min(step) = 0 AND max(step)::BIGINT + 1 = count(DISTINCT step) AS complete,
            bool_or(after) AND NOT (
                coalesce(bool_or(done) FILTER (after), false) AND NOT coalesce(bool_or(done) FILTER (before), false)
            ) AS waits,
            count(DISTINCT principal) AS principals,
            count(DISTINCT (environment, task_id, seed)) AS tasks
        FROM steps
        GROUP BY episode_id
    )
    SELECT
        CASE
            WHEN NOT agreed THEN 'another outcome says that it failed'
            WHEN complete IS NULL THEN 'none of its steps is stored'
            WHEN waits THEN 'steps came after its outcome, and wait for an outcome of their own'
            WHEN NOT complete THEN 'a step is missing'
            WHEN principals > 1 THEN 'its steps are of several principals'
            WHEN tasks > 1 THEN 'its steps are of several tasks'
            ELSE 'not an append-only conversation'
        END AS name,
        count(*) AS total
    FROM judged LEFT JOIN known USING (episode_id)
    GROUP BY ALL ORDER BY total DESC, name
"""

BRANCH_COUNTS = """
    SELECT
        count(*) AS states,
        count(*) FILTER (fidelity = 'dropped') AS dropped,
        coalesce(sum(requested), 0)::BIGINT AS requested,
        coalesce(sum(executed), 0)::BIGINT AS executed
    FROM branches
"""

RECOVERY_COUNTS = """
    SELECT
        count(*) AS episodes,
        count(*) FILTER (fidelity = 'dropped') AS dropped,
        coalesce(sum(attempts), 0)::BIGINT AS attempts,
        coalesce(sum(sandbox_steps), 0)::BIGINT AS sandbox_steps,
        coalesce(sum(recovered), 0)::BIGINT AS recoveries
    FROM recovery_attempts
"""

COUNTS = """
    SELECT
        (SELECT count(*) FROM duplicates) AS duplicates,
        (SELECT count(*) FROM dead_letters) AS dead_letters,
        (SELECT count(*) FROM quarantined) AS quarantined,
        (SELECT count(DISTINCT episode_id) FROM flags) AS flagged,
        (SELECT count(*) FROM untrusted) AS untrusted,
        (SELECT coalesce(sum(found - expected), 0)::BIGINT FROM gaps) AS gaps,
        (
            SELECT count(*) FROM outbox
            WHERE sequence >= coalesce((SELECT next FROM offsets WHERE topic = 'outbox'), 0)
        ) AS outbox_pending
"""
