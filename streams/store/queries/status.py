"""The counts of `GET /status`."""

from streams.store.queries.branches import STANDING_ATTEMPTS, STANDING_BRANCHES
from streams.store.queries.retractions import REVOKED_EPISODES
from streams.store.queries.trust import TRUSTED_NOW, UNTRUSTED_NOW, decided


def _by(column: str, table: str, total: str = "count(*)") -> str:
    return f"SELECT {column} AS name, {total} AS total FROM {table} GROUP BY ALL ORDER BY ALL"


EVENTS_BY_KIND = _by("kind", "events")
TRANSITIONS_BY_ORIGIN = _by("origin", "transitions")
# Of the split train they are those of the state `trusted`, of the others those `held-out` that did not fail.
TRUSTED_BY_SPLIT = _by(
    "split",
    f"({TRUSTED_NOW}) ANTI JOIN flags USING (episode_id) ANTI JOIN ({REVOKED_EPISODES}) AS revoked USING (episode_id)",
)
REDACTIONS_BY_KIND = _by("kind", "redactions", "sum(count)::BIGINT")
_PRACTICE = "SELECT DISTINCT episode_id FROM transitions WHERE origin = 'practice'"
# Producers may flag episodes for reasons of their own, so only the most frequent are told.
FLAGGED_BY_REASON = f"""
    SELECT reason AS name, count(DISTINCT episode_id) AS total
    FROM flags ANTI JOIN ({_PRACTICE}) USING (episode_id) GROUP BY ALL ORDER BY total DESC, name LIMIT 20
"""
FAILURES_BY_KIND = _by("fate", "fatalities")

# Episodes with a success that are not trusted, or not yet, and of which no other count speaks.
NOT_TRUSTED_BY_REASON = f"""
    SELECT reason AS name, count(*) AS total
    FROM ({decided("undecided")})
    ANTI JOIN flags USING (episode_id)
    ANTI JOIN ({REVOKED_EPISODES}) AS revoked USING (episode_id)
    WHERE succeeded
    GROUP BY ALL ORDER BY total DESC, name
"""

BRANCH_COUNTS = f"""
    SELECT
        count(*) AS states,
        count(*) FILTER (fidelity = 'dropped') AS dropped,
        coalesce(sum(requested), 0)::BIGINT AS requested,
        coalesce(sum(executed), 0)::BIGINT AS executed
    FROM ({STANDING_BRANCHES})
"""

RECOVERY_COUNTS = f"""
    SELECT
        count(*) AS episodes,
        count(*) FILTER (fidelity = 'dropped') AS dropped,
        coalesce(sum(attempts), 0)::BIGINT AS attempts,
        coalesce(sum(sandbox_steps), 0)::BIGINT AS sandbox_steps,
        coalesce(sum(recovered), 0)::BIGINT AS recoveries
    FROM ({STANDING_ATTEMPTS})
"""

COUNTS = f"""
    SELECT
        (SELECT count(*) FROM duplicates) AS duplicates,
        (SELECT count(*) FROM dead_letters) AS dead_letters,
        (SELECT count(*) FROM quarantined) AS quarantined,
        (SELECT count(DISTINCT episode_id) FROM flags ANTI JOIN ({_PRACTICE}) USING (episode_id)) AS flagged,
        (SELECT count(*) FROM ({UNTRUSTED_NOW})) AS untrusted,
        (SELECT coalesce(sum(found - expected), 0)::BIGINT FROM gaps) AS gaps,
        (
            SELECT count(*) FROM outbox
            WHERE sequence >= coalesce((SELECT next FROM offsets WHERE topic = 'outbox'), 0)
        ) AS outbox_pending
"""
