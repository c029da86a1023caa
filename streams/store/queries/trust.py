"""Decisions on episodes: which may be learned from, which failed, which lost trust, and which outcomes count."""

_TABLES = ("trusted", "failed", "untrusted", "undecided")


def decisions(moment: str = "true") -> str:
    """The newest decision on each episode up to a moment, by default now; `state` is the name of its table."""
    rows = " UNION ALL ".join(f"SELECT episode_id, sequence, '{name}' AS state FROM {name}" for name in _TABLES)
    return f"""
    SELECT episode_id, max(sequence) AS sequence, max_by(state, sequence) AS state
    FROM ({rows}) WHERE {moment} GROUP BY episode_id
    """


def decided(table: str, moment: str = "true") -> str:
    """The rows of a table of decisions that are the newest of their episodes up to a moment, by default now."""
    return f"SELECT * FROM {table} SEMI JOIN ({decisions(moment)}) USING (sequence)"


def standing_outcomes(which: str = "true") -> str:
    """Of `which` outcomes those that count: of one verifier on an episode the latest, of equally late ones the last."""
    return f"""
    SELECT * FROM outcomes WHERE {which}
    QUALIFY row_number() OVER (PARTITION BY episode_id, verifier ORDER BY recorded_at DESC, sequence DESC) = 1
    """


_LEARNABLE = "SELECT episode_id, sequence, split, principal FROM ({})"

# What was judged are the steps of a lower sequence than the row's.
TRUSTED_NOW = _LEARNABLE.format(decided("trusted"))
FAILED_NOW = _LEARNABLE.format(decided("failed"))
TRUSTED_AS_OF = _LEARNABLE.format(decided("trusted", "sequence <= $as_of"))
FAILED_AS_OF = _LEARNABLE.format(decided("failed", "sequence <= $as_of"))
UNTRUSTED_NOW = decided("untrusted")

LATEST_WITHDRAWAL = "SELECT coalesce(max(sequence), 0) AS sequence FROM untrusted"

# What a snapshot calls the trajectories of episodes that lost trust: their own ids, and those of their recoveries.
WITHDRAWN_TRAJECTORIES = f"""
    WITH lost AS ({UNTRUSTED_NOW})
    SELECT withdrawal_id, trajectory
    FROM (
        SELECT withdrawal_id, episode_id AS trajectory, sequence FROM lost
        UNION ALL
        SELECT withdrawal_id, recovery_id, lost.sequence FROM lost JOIN recoveries USING (episode_id)
    )
    ORDER BY sequence
"""

WITHDRAWALS_AFTER = """
    SELECT count(*) AS count FROM untrusted WHERE sequence > $sequence AND withdrawal_id IN $withdrawal_ids
"""
