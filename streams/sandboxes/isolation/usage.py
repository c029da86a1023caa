"""The resource usage of a sandbox, measured where a cheaper figure is not exact enough or does not exist.

For the resource monitor.
"""

import os
import re
import stat
from contextlib import suppress
from pathlib import Path

from streams.sandboxes.isolation.tree import Process

_BLOCK_BYTES = 512  # of st_blocks, whatever the file system's are
# What a file takes of the system even if it is empty.
_LEAST_BYTES = 4096


def memory_of(process: Process) -> int:
    """Its memory in bytes, with an equal share of what it shares with others (proc_pid_smaps(5), Pss)."""
    try:
        rollup = Path(f"/proc/{process.pid}/smaps_rollup").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return 0  # it has ended since
    except PermissionError:
        return process.resident
    found = re.search(r"^Pss:\s*(\d+) kB", rollup, re.MULTILINE)
    return int(found[1]) * 1024 if found else 0


def files_in(folder: Path, most: int) -> int:
    """The bytes that all files below `folder` take; some number above `most` once there are more.

    Raises `OSError` for what cannot be looked at.
    """
    total = 0
    pending = [str(folder)]
    while pending and total <= most:
        try:
            entries = list(os.scandir(pending.pop()))
        except FileNotFoundError:
            continue
        for entry in entries:
            with suppress(FileNotFoundError):
                status = entry.stat(follow_symlinks=False)
                total += max(status.st_blocks * _BLOCK_BYTES, _LEAST_BYTES)
                if stat.S_ISDIR(status.st_mode):
                    pending.append(entry.path)
    return total


def files_in_memory(process: Process, folder: Path) -> int:
    """The bytes that the file system at `folder` holds, which `process` has for itself; 0 while it cannot be seen."""
    try:
        # Opened once: while a sandbox begins, the same path may be another folder a moment later.
        seen = os.open(f"/proc/{process.pid}/root{folder}", os.O_PATH)
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return 0  # it has ended since, or only begins
    try:
        if os.fstat(seen).st_dev == folder.stat().st_dev:
            return 0  # it has not left the machine's own files yet
        held = os.fstatvfs(seen)
    finally:
        os.close(seen)
    return max((held.f_blocks - held.f_bfree) * held.f_frsize, (held.f_files - held.f_ffree) * _LEAST_BYTES)


def deleted_files_of(process: Process) -> int:
    """The bytes of files that it has open and that no folder holds any more."""
    total = 0
    with suppress(FileNotFoundError, ProcessLookupError, PermissionError):
        for name in os.listdir(f"/proc/{process.pid}/fd"):
            with suppress(FileNotFoundError):
                status = os.stat(f"/proc/{process.pid}/fd/{name}")
                if stat.S_ISREG(status.st_mode) and status.st_nlink == 0:
                    total += status.st_blocks * _BLOCK_BYTES
    return total
