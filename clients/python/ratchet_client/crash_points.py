"""Named places where a process can be made to die, so that a test can prove that dying there loses nothing.

The technique is that of FreeBSD's fail(9) and TiKV's fail-rs. `tests/crash` enumerates the points and kills at each.
"""

import os
import signal
from enum import StrEnum
from itertools import count

from ratchet_client.errors import ConfigurationError

VARIABLE = "RATCHET_CRASH_AT"


class CrashPoint(StrEnum):
    """Before and after whatever must not be done half: a message, the rows, their transaction, an offset, a name."""

    PRODUCER_SEND_BEFORE = "producer.send:before"
    PRODUCER_SEND_AFTER = "producer.send:after"
    PRODUCER_ACK_AFTER = "producer.ack:after"
    SPOOL_COMMIT_BEFORE = "spool.commit:before"
    SPOOL_COMMIT_AFTER = "spool.commit:after"
    OUTBOX_PUBLISH_BEFORE = "outbox.publish:before"
    OUTBOX_PUBLISH_AFTER = "outbox.publish:after"
    DEAD_LETTERS_PUBLISH_BEFORE = "dead-letters.publish:before"
    DEAD_LETTERS_PUBLISH_AFTER = "dead-letters.publish:after"
    RESULTS_PUBLISH_BEFORE = "results.publish:before"
    RESULTS_PUBLISH_AFTER = "results.publish:after"
    MIGRATION_BEFORE = "store.migration:before"
    MIGRATION_AFTER = "store.migration:after"
    CHECKPOINT_BEFORE = "store.checkpoint:before"
    CHECKPOINT_AFTER = "store.checkpoint:after"
    INSERT_BEFORE = "store.insert:before"
    INSERT_AFTER = "store.insert:after"
    COMMIT_BEFORE = "store.commit:before"
    COMMIT_AFTER = "store.commit:after"
    ACK_BEFORE = "log.ack:before"
    ACK_AFTER = "log.ack:after"
    GROUP_COMMIT_BEFORE = "group.commit:before"
    GROUP_COMMIT_AFTER = "group.commit:after"
    FILE_RENAME_BEFORE = "file.rename:before"
    FILE_RENAME_AFTER = "file.rename:after"
    LINES_APPEND_BEFORE = "lines.append:before"
    LINES_APPEND_AFTER = "lines.append:after"
    SNAPSHOT_RENAME_BEFORE = "snapshot.rename:before"
    SNAPSHOT_RENAME_AFTER = "snapshot.rename:after"
    ROLLOUT_BEFORE = "trial.rollout:before"
    ROLLOUT_AFTER = "trial.rollout:after"
    TRIAL_BEFORE = "trial.begin:before"
    TRIAL_AFTER = "trial.begin:after"
    VERDICT_BEFORE = "trial.verdict:before"
    VERDICT_AFTER = "trial.verdict:after"
    CYCLE_AFTER = "trial.cycle:after"
    BACKUP_STEP_BEFORE = "backup.step:before"
    ERASURE_STEP_BEFORE = "erasure.step:before"
    UPGRADE_STEP_BEFORE = "upgrade.step:before"


def reach(point: CrashPoint) -> None:
    """Kill this process by SIGKILL if `RATCHET_CRASH_AT` names this point and it is reached for the N-th time."""
    if _ARMED is not None and point is _ARMED[0] and next(_TIMES) == _ARMED[1]:
        os.kill(os.getpid(), signal.SIGKILL)


def armed(setting: str) -> tuple[CrashPoint, int] | None:
    """The point that `setting` (`NAME` or `NAME@N`) names, and the time, counted from 1, at which it kills.

    None for an empty setting. Raises `ConfigurationError` for a name or number that does not exist.

    >>> armed("store.commit:before@2")
    (<CrashPoint.COMMIT_BEFORE: 'store.commit:before'>, 2)
    """
    if not setting:
        return None
    name, _, times = setting.partition("@")
    if name not in set(CrashPoint) or not (times or "1").isdecimal() or times == "0":
        raise ConfigurationError(
            f"{VARIABLE}={setting} names no crash point; NAME or NAME@N, with one of {', '.join(CrashPoint)}"
        )
    return CrashPoint(name), int(times or "1")


# Read once: in production, a point costs a call and a comparison.
_ARMED = armed(os.environ.get(VARIABLE, ""))
_TIMES = count(1)
