"""Transitions as of a sequence, of one origin or, where `$origin` is null, of all."""

from streams.store.queries.retractions import REVOKED_EPISODES_AS_OF

_LOOKED_AT = "sequence <= $as_of AND ($origin IS NULL OR origin = $origin)"
_CONSENTED = f"episode_id NOT IN ({REVOKED_EPISODES_AS_OF})"

COUNT_OF_TRANSITIONS = f"""
    SELECT count(*) FILTER ({_CONSENTED}) AS rows, count(*) - rows AS revoked
    FROM transitions
    WHERE {_LOOKED_AT}
"""

NEWEST_TRANSITIONS = f"""
    FROM (
        SELECT * FROM transitions WHERE {_LOOKED_AT} AND {_CONSENTED} ORDER BY sequence DESC LIMIT $limit
    )
    ORDER BY sequence
"""

TRANSITIONS_AFTER = f"""
    SELECT * FROM transitions
    WHERE {_LOOKED_AT} AND {_CONSENTED} AND sequence > $after
    ORDER BY sequence
    LIMIT $limit
"""
