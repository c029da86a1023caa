"""The check that no process of Ratchet uses a home, by the locks that they hold. `upgrading` asks before each change.

The store's own lock is met when it is read.
"""

import fcntl
import os
from pathlib import Path

from daemon.backups.creating import Source
from daemon.registry.learner_status import LEARNER_LOCK, learner_report
from daemon.serving.sole import LOCK_FILE
from streams.assembly.tables import file_of
from streams.errors import UpgradeError
from streams.trust.groups import homes_in

# The byte of a database that SQLite locks for all who read it; older roles had the file to themselves.
_SHARED_BYTES = 0x40000002


def refuse_in_use(source: Source) -> None:
    """Raise `UpgradeError`, which names the role, where one uses the home."""
    assembly, homes = source.assembly, [*homes_in(source.home)]
    in_use = {
        "serve": _is_locked(source.home / LOCK_FILE),
        "assemble": _is_locked(assembly.with_name(f"{assembly.name}.lock")) or _is_owned(file_of(assembly)),
        "learn": _is_locked(source.home / LEARNER_LOCK) or any(learner_report(home, ()).running for home in homes),
    }
    used = [role for role, is_used in in_use.items() if is_used]
    if used:
        raise UpgradeError(
            f"the home {source.home} is in use by {', '.join(used)}: stop Ratchet, and upgrade then. A learner that "
            "was killed is taken for alive for a minute"
        )


def _is_locked(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def _is_owned(database: Path) -> bool:
    """Return whether a process has the file of SQLite to itself."""
    try:
        with database.open("rb") as file:
            fcntl.lockf(file, fcntl.LOCK_SH | fcntl.LOCK_NB, 1, _SHARED_BYTES, os.SEEK_SET)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return False
