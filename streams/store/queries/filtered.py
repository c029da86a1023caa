"""The rows of the store that belong to some principals or agents, for tokens that may read these alone.

An episode is theirs if every one of its steps names such a principal, and every one of them such an agent: one
in which another takes part is not shown. What is of no episode and no principal, such as offsets, is not shown.
"""

from streams.store.tables import TABLES

# Principals are texts: LIKE would read `_` and `%` in a prefix as more than themselves.
_OF_PRINCIPAL = "coalesce(starts_with(principal, $prefix::VARCHAR), false)"
_EPISODES = f"""
    SELECT episode_id FROM transitions WHERE episode_id IS NOT NULL GROUP BY episode_id
    HAVING $prefix::VARCHAR IS NULL OR bool_and({_OF_PRINCIPAL})
"""
_EPISODES_OF_AGENTS = """
    SELECT episode_id FROM events WHERE kind = 'step' GROUP BY episode_id
    HAVING $agents::VARCHAR[] IS NULL OR bool_and(coalesce(list_contains($agents::VARCHAR[], agent), false))
"""
_OF_EPISODE = f"episode_id IN ({_EPISODES}) AND episode_id IN ({_EPISODES_OF_AGENTS})"
# Of the tables that name a principal and no episode. Nothing in them names an agent.
_OF_NO_EPISODE = f"$agents::VARCHAR[] IS NULL AND $prefix::VARCHAR IS NOT NULL AND {_OF_PRINCIPAL}"


def _condition(columns: list[str]) -> str | None:
    if "episode_id" not in columns:
        return _OF_NO_EPISODE if "principal" in columns else None
    return f"{_OF_EPISODE} AND ($prefix::VARCHAR IS NULL OR {_OF_PRINCIPAL})" if "principal" in columns else _OF_EPISODE


ROWS = {
    name: f"SELECT * FROM {name} WHERE {condition}"
    for name, schema in TABLES.items()
    if (condition := _condition(schema.names)) is not None
}
"""A SELECT for each table that has any such rows, with the parameters `$prefix` and `$agents`."""
