"""Practice episodes: what the writer reads back, what the learner chooses tasks by, and what status tells.

No other module's query speaks of them, but those of the transitions by origin.
"""

from streams.store.queries.groups import within_practice_of_group
from streams.store.queries.snapshots import among_older

_WITHIN = ("", within_practice_of_group())
_WANTED = "sequence >= $start AND episode_id IN (FROM wanted)"

PRACTICE_STEPS_OF_WANTED = f"""
    SELECT
        episode_id, step, environment, task_id, seed, state, messages, action, observation, tools, actor_kind,
        principal, done, sequence, adapter, advice
    FROM transitions
    WHERE {_WANTED} AND origin = 'practice'
    ORDER BY episode_id, step, sequence
"""

FLAGS_OF_WANTED = f"""
    SELECT episode_id, min_by(reason, sequence) AS flag FROM flags WHERE {_WANTED} GROUP BY episode_id
"""


def _first(within: str) -> str:
    """The first outcome of each episode, which counts."""
    return f"""
    SELECT * FROM practised {within}
    WHERE task_id IS NOT NULL QUALIFY row_number() OVER (PARTITION BY episode_id ORDER BY sequence) = 1
    """


def _unaided(within: str) -> str:
    """Attempts without advice: those with it say nothing of what the adapter does alone."""
    return f"SELECT * FROM ({_first(within)}) WHERE advice IS NULL"


def _newest_attempts(within: str) -> str:
    """Of each task, the attempts of the adapter that played it last: what earlier ones could do says little of it."""
    return f"""
    SELECT environment, task_id, count(*) AS attempts, count(*) FILTER (success) AS successes, max(sequence) AS last
    FROM (
        SELECT *, last_value(adapter) OVER (
            PARTITION BY environment, task_id ORDER BY sequence
            ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING
        ) AS newest
        FROM ({_unaided(within)})
    )
    WHERE adapter IS NOT DISTINCT FROM newest
    GROUP BY ALL
    """


def _attempts_by_task(within: str) -> str:
    return f"""
    SELECT task_id, attempts, successes, last FROM ({_newest_attempts(within)}) WHERE environment = $environment
    ORDER BY task_id
    """


def _new_practice(within: str) -> str:
    """Successes that came after $since on tasks that the same adapter failed as well: of these it can learn."""
    return f"""
    WITH new AS (SELECT * FROM ({_unaided(within)}) WHERE reason IS NULL AND sequence > $since)
    SELECT coalesce(sum(successes), 0)::BIGINT AS successes, count(*) AS groups
    FROM (
        SELECT count(*) FILTER (success) AS successes FROM new
        GROUP BY environment, task_id, adapter HAVING bool_or(success) AND NOT bool_and(success)
    )
    """


def _practice_steps(within: str) -> str:
    """For a snapshot as of a sequence: of each task the newest successes and the newest failures, by kind of advice."""
    practised = f"""
    SELECT episode_id, success, score, sequence AS judged_at
    FROM (
        SELECT * FROM practised {within}
        WHERE sequence <= $as_of AND task_id IS NOT NULL
        QUALIFY row_number() OVER (PARTITION BY episode_id ORDER BY sequence) = 1
    )
    WHERE reason IS NULL
    QUALIFY
        row_number() OVER (PARTITION BY environment, task_id, success, advice ORDER BY sequence DESC) <= $most_per_task
        OR {among_older("episode_id")}
    """
    return f"""
    SELECT DISTINCT ON (episode_id, step)
        episode_id, task_id, step, messages, action, observation, tools, actor_kind, adapter, log_probabilities,
        advice, practice.success, practice.score
    FROM transitions JOIN ({practised}) AS practice USING (episode_id)
    WHERE origin = 'practice' AND sequence < judged_at
    ORDER BY episode_id, step, sequence
    """


# Those of groups of agents and tenants take `Members.practice_parameters` too.
ATTEMPTS_BY_TASK, ATTEMPTS_BY_TASK_OF_GROUP = map(_attempts_by_task, _WITHIN)
NEW_PRACTICE, NEW_PRACTICE_OF_GROUP = map(_new_practice, _WITHIN)
PRACTICE_STEPS, PRACTICE_STEPS_OF_GROUP = map(_practice_steps, _WITHIN)

PRACTICE_COUNTS = f"""
    SELECT
        count(*) FILTER (advice IS NULL) AS episodes,
        count(*) FILTER (success AND advice IS NULL) AS successes,
        count(*) FILTER (advice IS NOT NULL) AS advised,
        coalesce(sum(steps), 0)::BIGINT AS steps,
        count(*) FILTER (reason IS NOT NULL) AS unusable
    FROM ({_first("")})
"""

PRACTICE_BY_BUCKET = f"""
    SELECT CASE successes WHEN 0 THEN 'hopeless' WHEN attempts THEN 'solved' ELSE 'frontier' END AS name,
        count(*) AS total
    FROM ({_newest_attempts("")}) GROUP BY ALL ORDER BY name
"""
