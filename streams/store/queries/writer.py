"""Queries of the store's writer. `wanted` is a table of ids that it registers."""

from streams.store.queries.branches import LACKED_SANDBOX
from streams.store.queries.retractions import REVOKED_EPISODES, REVOKED_EPISODES_SINCE
from streams.store.queries.trust import decisions, standing_outcomes
from streams.store.tables import TABLES


def next_sequence(database: str = "") -> str:
    """The sequence that the next row gets, in the store that is attached as `database`."""
    numbered = (name for name, schema in TABLES.items() if "sequence" in schema.names)
    ends = " UNION ALL ".join(f"SELECT max(sequence) AS last FROM {database}{name}" for name in numbered)
    return f"SELECT coalesce(max(last), 0) + 1 AS sequence FROM ({ends})"


def _newest(table: str, columns: str) -> str:
    """The columns, aggregated over the rows of each wanted episode in a table."""
    return f"""
    SELECT episode_id, {columns} FROM {table}
    WHERE sequence >= $start AND episode_id IN (FROM wanted)
    GROUP BY episode_id
    """


NEXT_SEQUENCE = next_sequence()

OFFSETS = "SELECT topic, partition, next FROM offsets"
# Without the sequence, which a store has there that several processes write.
POSITIONS = f"{OFFSETS} WHERE topic <> 'sequence'"
ADD_OFFSET = "INSERT INTO offsets (topic, partition, next) VALUES ($topic, $partition, $next)"
SET_OFFSET = "UPDATE offsets SET next = $next WHERE topic = $topic AND partition = $partition"

LAST_CLUSTER = "SELECT cluster_id FROM logs ORDER BY sequence DESC LIMIT 1"

# The ids of everything that is stored once.
STORED_IDS = """
    SELECT event_id FROM events
    UNION ALL SELECT result_id FROM branches
    UNION ALL SELECT result_id FROM recovery_attempts
    UNION ALL SELECT event_id FROM erased WHERE event_id IS NOT NULL
"""
WANTED_STORED_IDS = f"SELECT event_id FROM ({STORED_IDS}) WHERE event_id IN (FROM wanted)"

STORED_EPISODES = "SELECT DISTINCT episode_id FROM events WHERE kind <> 'retraction'"

RECENTLY_TRUSTED = """
    SELECT principal, likeness, trusted_at FROM trusted
    WHERE trusted_at > $since AND sequence < $before
    ORDER BY sequence
"""

# What the store remembers of the rows of a range of sequences. `kind` is that of an event, or the table's name.
REMEMBERED_OF_RANGE = """
    WITH remembered AS (
        SELECT sequence, kind, event_id, episode_id FROM events
        UNION ALL BY NAME SELECT sequence, 'branches' AS kind, result_id AS event_id FROM branches
        UNION ALL BY NAME SELECT sequence, 'recovery_attempts' AS kind, result_id AS event_id FROM recovery_attempts
        UNION ALL BY NAME SELECT sequence, 'trusted' AS kind, principal, likeness, trusted_at FROM trusted
        UNION ALL BY NAME SELECT sequence, 'erased' AS kind FROM erased
    )
    FROM remembered WHERE sequence BETWEEN $first AND $last ORDER BY sequence
"""

# Episodes with an outcome: steps of theirs that come later are looked at.
JUDGED_EPISODES = "SELECT DISTINCT episode_id FROM outcomes"

# Episodes on which an older version or other settings may have decided otherwise: something came after the judgement,
# the outcomes that count say otherwise, a setting decides ($by_settings are the reasons), or nothing was decided yet.
DECIDED_TO_JUDGE_AGAIN = f"""
    WITH decided AS ({decisions()}),
    learned AS (FROM decided WHERE state IN ('trusted', 'failed')),
    verdicts AS (
        SELECT
            episode_id, bool_and(success) AS agreed, bool_or(success) AS succeeded,
            $model_judges OR NOT bool_and(starts_with(verifier, $model_judge)) AS verified
        FROM ({standing_outcomes()}) GROUP BY episode_id
    )
    SELECT episode_id FROM learned JOIN transitions USING (episode_id)
        WHERE origin = 'production' AND transitions.sequence > learned.sequence
    UNION SELECT episode_id FROM learned JOIN flags USING (episode_id)
    UNION SELECT episode_id FROM decided JOIN verdicts USING (episode_id)
        WHERE CASE state
            WHEN 'trusted' THEN NOT (agreed AND verified)
            WHEN 'failed' THEN succeeded
            WHEN 'untrusted' THEN agreed AND verified
        END
    UNION SELECT episode_id FROM decided JOIN undecided USING (episode_id, sequence) WHERE reason IN $by_settings
    UNION SELECT episode_id FROM verdicts
        ANTI JOIN decided USING (episode_id)
        ANTI JOIN flags USING (episode_id)
        ANTI JOIN ({REVOKED_EPISODES}) AS revoked USING (episode_id)
"""

PRINCIPALS_OF_WANTED = """
    SELECT episode_id, any_value(principal) AS principal
    FROM transitions
    WHERE sequence >= $start AND origin = 'production' AND episode_id IN (FROM wanted)
    GROUP BY episode_id
"""

OUTBOX_FROM = "SELECT sequence, topic, key, value FROM outbox WHERE sequence >= $start ORDER BY sequence LIMIT $limit"

# The newest request of an episode counts: it has the most steps. One that is trusted or failed no more is not repeated.
UNANSWERED_REQUESTS = f"""
    SELECT topic, key, value
    FROM (
        SELECT DISTINCT ON (key) topic, key, value, decode(key) AS episode_id
        FROM outbox
        WHERE topic = $topic
        ORDER BY key, sequence DESC
    )
    SEMI JOIN (FROM ({decisions()}) WHERE state IN ('trusted', 'failed')) AS learned USING (episode_id)
    ANTI JOIN ({REVOKED_EPISODES}) AS revoked USING (episode_id)
    WHERE json_extract_string(decode(value), '$.event_id') NOT IN (
        SELECT request_id FROM branches UNION ALL SELECT request_id FROM recovery_attempts
    )
    ORDER BY key
"""

# The newest request of each episode that was answered, and to which the answer was that no sandbox could be opened.
_WITHOUT_SANDBOX = f"""
    WITH lacked AS (
        SELECT request_id FROM branches WHERE {LACKED_SANDBOX}
        UNION SELECT request_id FROM recovery_attempts WHERE {LACKED_SANDBOX}
    )
    SELECT key, value, json_extract_string(decode(value), '$.task.environment') AS environment
    FROM (
        SELECT DISTINCT ON (key) key, value, decode(key) AS episode_id
        FROM outbox
        WHERE topic = $topic
        ORDER BY key, sequence DESC
    )
    SEMI JOIN (FROM ({decisions()}) WHERE state IN ('trusted', 'failed')) AS learned USING (episode_id)
    ANTI JOIN ({REVOKED_EPISODES}) AS revoked USING (episode_id)
    WHERE json_extract_string(decode(value), '$.event_id') IN (FROM lacked)
"""
ENVIRONMENTS_WITHOUT_SANDBOX = f"SELECT DISTINCT environment FROM ({_WITHOUT_SANDBOX}) ORDER BY environment"
# Those of `environments`, `limit` of them at most.
REQUESTS_WITHOUT_SANDBOX = f"""
    SELECT value FROM ({_WITHOUT_SANDBOX}) WHERE list_contains($environments, environment) ORDER BY key LIMIT $limit
"""

# Of the wanted episodes with an outcome: those that count, and what was decided when. None has a row before $start.
OUTCOMES_TO_JUDGE = f"""
    WITH judged AS (
        SELECT
            episode_id, list(verifier ORDER BY verifier) AS verifiers, list(success ORDER BY verifier) AS successes,
            max(sequence) AS outcome_at
        FROM ({standing_outcomes("sequence >= $start AND episode_id IN (FROM wanted)")})
        GROUP BY episode_id
    )
    SELECT
        episode_id, verifiers, successes, outcome_at, trusted_at, failed_at, untrusted_at, undecided_at, reason, flag
    FROM judged
    LEFT JOIN ({_newest("trusted", "max(sequence) AS trusted_at")}) USING (episode_id)
    LEFT JOIN ({_newest("failed", "max(sequence) AS failed_at")}) USING (episode_id)
    LEFT JOIN ({_newest("untrusted", "max(sequence) AS untrusted_at")}) USING (episode_id)
    LEFT JOIN (
        {_newest("undecided", "max(sequence) AS undecided_at, max_by(reason, sequence) AS reason")}
    ) USING (episode_id)
    LEFT JOIN ({_newest("flags", "min_by(reason, sequence) AS flag")}) USING (episode_id)
    WHERE episode_id NOT IN ({REVOKED_EPISODES_SINCE})
"""

STEPS_OF_WANTED = """
    SELECT
        episode_id, step, environment, task_id, seed, state, messages, action, observation, tools, actor_kind,
        principal, done, sequence
    FROM transitions
    WHERE sequence >= $start AND origin = 'production' AND episode_id IN (FROM wanted)
    ORDER BY episode_id, step, sequence
"""


def count_of(query: str) -> str:
    """Return the query that counts the rows of a query, as `count`."""
    return f"SELECT count(*) AS count FROM ({query})"
