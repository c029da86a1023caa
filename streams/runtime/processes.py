"""Processes of one machine: ending with their parent or on a signal, and free ports."""

import asyncio
import ctypes
import os
import signal
import socket
import sys
from pathlib import Path

_PR_SET_PDEATHSIG = 1
# Found beforehand: between fork and exec a lock of the dynamic linker may be held by a thread that the child has not.
_PRCTL = ctypes.CDLL(None, use_errno=True).prctl if sys.platform == "linux" else None


def die_with_parent(parent: int | None = None) -> None:
    """Have the kernel kill this process when the process that started it ends, however it ends.

    `parent` is the id of the process that did the starting; with it, a parent that is already gone is noticed too.
    Does nothing but on Linux. The signal follows the *thread* that started the process: it must be a lasting one.
    """
    if _PRCTL is None:
        return
    if _PRCTL(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) failed")
    if parent is not None and os.getppid() != parent:
        # It died before the request was made, so no signal will come.
        os.kill(os.getpid(), signal.SIGKILL)


def peak_memory() -> int:
    """The most memory that this process has had resident, in bytes; 0 where the kernel does not say."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return 0
    # Not `getrusage`, which counts what the process was before it began this program.
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:")), 0)


def free_port() -> int:
    """A loopback TCP port that nothing listens on.

    Another process may take it first; binding it then fails.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def is_free(port: int) -> bool:
    """Return whether a loopback TCP port can be listened on now, as by a server that ended there a moment ago."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def stop_on_signals() -> asyncio.Event:
    """An event that SIGTERM or SIGINT sets. Call it on the running event loop of the main thread."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    return stop
