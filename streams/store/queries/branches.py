"""The results of branch requests that count: an answer that no sandbox could be opened gives way to a later one."""

from streams.branch_events import NO_SANDBOX

# The others are reasons by which versions before `NO_SANDBOX` said the same.
LACKED_SANDBOX = f"""(
    starts_with(reason, '{NO_SANDBOX}')
    OR starts_with(reason, 'no sandbox is installed for the environment ')
    OR reason LIKE '%the settings of the environment %, are wrong: %'
)"""

STANDING_BRANCHES = f"""
    SELECT * FROM branches
    QUALIFY NOT {LACKED_SANDBOX} OR row_number() OVER (PARTITION BY episode_id, step ORDER BY sequence DESC) = 1
"""

STANDING_ATTEMPTS = f"""
    SELECT * FROM recovery_attempts
    QUALIFY NOT {LACKED_SANDBOX} OR row_number() OVER (PARTITION BY episode_id ORDER BY sequence DESC) = 1
"""
