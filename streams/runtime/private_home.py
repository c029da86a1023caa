"""Files that only their owner may read: what a process makes, and what lies in the home folder.

Every process of Ratchet calls `keep_files_private` before it makes a file; `ratchet run` and the demo call `secure`.
"""

import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import structlog

from ratchet_client.errors import ConfigurationError

log = structlog.get_logger()

_ROOT = 0
_OTHERS = stat.S_IRWXG | stat.S_IRWXO


def keep_files_private() -> None:
    """Have this process, and those that it starts, make files of mode 0600 and folders of 0700."""
    os.umask(_OTHERS)


def secure(home: Path) -> None:
    """Make `home` where it is missing, and take from other users what they may do in it.

    The root of a volume may belong to root: Kubernetes gives it to a group. Its content is tightened all the same.
    Raises `ConfigurationError` for a home that belongs to another user, or is not a folder.
    """
    home = home.resolve()
    try:
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        owner, user = home.stat().st_uid, os.geteuid()
        if owner not in (user, _ROOT):
            raise ConfigurationError(
                f"the home {home} belongs to user {owner}, and this process runs as user {user}: run Ratchet as its "
                f"owner, give the folder to this user (chown -R {user} {home}), or set RATCHET_HOME to another"
            )
        tightened = sum(_tighten(path, user) for path in _everything(home))
    except OSError as error:
        raise ConfigurationError(f"the home {home} cannot be used: {error}; correct it, or set RATCHET_HOME") from error
    if owner != user and home.stat().st_mode & stat.S_IRWXO:
        log.warning("other users can read the home, which belongs to root", home=str(home), remedy="chmod o-rwx")
    if tightened:
        log.warning("other users could read the home; now its owner alone can", home=str(home), changed=tightened)


def _everything(home: Path) -> Iterator[Path]:
    yield home
    for place, folders, files in os.walk(home):
        for name in (*folders, *files):
            yield Path(place, name)


def _tighten(path: Path, user: int) -> bool:
    """Take the rights of others from a `path` of `user`; returns whether they had any. Links are left alone."""
    # Another role may remove a file meanwhile.
    with suppress(FileNotFoundError):
        status = path.lstat()
        mode = status.st_mode
        if status.st_uid == user and not stat.S_ISLNK(mode) and mode & _OTHERS:
            path.chmod(stat.S_IMODE(mode) & ~_OTHERS)
            return True
    return False
