"""Episodes that may be learned from, and those that lost trust."""


def _not_withdrawn(table: str, moment: str) -> str:
    """The newest row of each episode in `trusted` or `failed`, unless the episode lost trust; at a moment, or now."""
    return f"""
    SELECT episode_id, max(sequence) AS sequence, any_value(split) AS split, any_value(principal) AS principal
    FROM {table}
    WHERE {moment} AND episode_id NOT IN (SELECT episode_id FROM untrusted WHERE {moment})
    GROUP BY episode_id
    """


# What was judged are the steps of a lower sequence than the row's.
TRUSTED_NOW = _not_withdrawn("trusted", "true")
FAILED_NOW = _not_withdrawn("failed", "true")
TRUSTED_AS_OF = _not_withdrawn("trusted", "sequence <= $as_of")
FAILED_AS_OF = _not_withdrawn("failed", "sequence <= $as_of")

LATEST_WITHDRAWAL = "SELECT coalesce(max(sequence), 0) AS sequence FROM untrusted"

# What a snapshot calls the trajectories of episodes that lost trust: their own ids, and those of their recoveries.
WITHDRAWN_TRAJECTORIES = """
    SELECT withdrawal_id, trajectory
    FROM (
        SELECT withdrawal_id, episode_id AS trajectory, sequence FROM untrusted
        UNION ALL
        SELECT withdrawal_id, recovery_id, untrusted.sequence FROM untrusted JOIN recoveries USING (episode_id)
    )
    ORDER BY sequence
"""

WITHDRAWALS_AFTER = """
    SELECT count(*) AS count FROM untrusted WHERE sequence > $sequence AND withdrawal_id IN $withdrawal_ids
"""
