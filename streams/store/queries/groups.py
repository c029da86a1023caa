"""The episodes of one group of agents and tenants: those of which every step is of its members; and its practice.

An episode in which members of several groups took part belongs to none. The parameters are those of
`streams.trust.groups.Members`, of which at most one selector has a step.
"""

from streams.trust.practice import AGENT


def within_group(moment: str = "true") -> str:
    """A join that leaves the rows of the group's episodes; `moment` chooses the steps that are looked at."""
    return f"""
    SEMI JOIN (
        SELECT episode_id
        FROM (
            FROM transitions LEFT JOIN (SELECT event_id AS transition_id, agent FROM events) USING (transition_id)
            WHERE origin = 'production' AND {moment}
        )
        LEFT JOIN (
            SELECT
                unnest($groups::VARCHAR[]) AS of_group,
                unnest($of_agents::VARCHAR[]) AS of_agent,
                unnest($of_tenants::VARCHAR[]) AS of_tenant
        )
        ON of_agent IN ('', coalesce(agent, '')) AND of_tenant IN ('', split_part(coalesce(principal, ''), '/', 1))
        GROUP BY episode_id
        HAVING bool_and(coalesce(of_group, '') = $group)
    ) USING (episode_id)
    """


def within_practice_of_group() -> str:
    """A join that leaves the rows of what the group's adapter practised, by `Members.practice_parameters`."""
    return f"""
    SEMI JOIN (
        SELECT episode_id
        FROM transitions LEFT JOIN (SELECT event_id AS transition_id, agent FROM events) USING (transition_id)
        WHERE origin = 'practice'
        GROUP BY episode_id
        HAVING bool_and($practised_as = if(list_contains($set_apart::VARCHAR[], agent), agent, '{AGENT}'))
    ) USING (episode_id)
    """
