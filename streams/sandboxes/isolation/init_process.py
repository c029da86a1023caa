"""The root of a sandbox's processes in tier B, started by `landlock.py`. It is not confined itself.

It imports as little as it can: every sandbox waits for it.

It starts the confined process, reaps what falls to it, and kills all that is left when that process ends, when it is
told to, or when the pool's process dies.
"""

import binascii
import ctypes
import json
import os
import select
import signal
import socket
import sys
import time
from contextlib import suppress
from types import FrameType
from typing import NoReturn

from streams.sandboxes.isolation import confine
from streams.sandboxes.isolation.confine import ConfinementRules
from streams.sandboxes.isolation.loopback import Loopback
from streams.sandboxes.isolation.tree import descendants, processes

_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36
_REAP_INTERVAL_MS = 1000
# Where the sandbox shares its user with others, the number of processes is the resource monitor's to watch. This
# bounds what a fork bomb reaches before that, so that killing overtakes it.
_SHARED_USER_PROCESSES = 1024


def main() -> NoReturn:
    """`supervisor ORDER_FD PARENT_PID`, where the file holds `landlock.py`'s order as JSON."""
    order_fd, parent = map(int, sys.argv[1:])
    with os.fdopen(order_fd, "rb") as file:
        order = json.load(file)
    confinement = ConfinementRules(
        **{**order["confinement"], "rules": binascii.a2b_base64(order["confinement"]["rules"])}
    )
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)
    signal.signal(signal.SIGTERM, _told_to_end)
    _prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:
        sys.exit("the sandbox's pool was gone before the sandbox began")
    if order["confined"] and os.geteuid() == 0:
        user = confine.private_user(os.getpid())
        os.chown(confinement.home, user, user)
    ours, theirs = socket.socketpair()
    me = os.getpid()
    child = os.fork()
    if child == 0:
        ours.close()
        _become(order["command"], confinement, theirs, supervised_by=me, confined=order["confined"])
    theirs.close()
    # The pool must see the ends of its pipes close when the sandbox's own are closed.
    with open(os.devnull, "r+b") as nothing:
        os.dup2(nothing.fileno(), 0)
        os.dup2(nothing.fileno(), 1)
    _, listeners, _, _ = socket.recv_fds(ours, 1, 1)
    loopback = Loopback(listeners[0], order["numbers"]) if listeners else None
    _end_all(_watch(child, loopback, listeners))


def _become(
    command: list[str], confinement: ConfinementRules, supervisor: socket.socket, *, supervised_by: int, confined: bool
) -> NoReturn:
    """Confine this process, the child, and become `command`."""
    try:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.chdir(confinement.home)
        confine.limit_resources(confinement)
        root = os.geteuid() == 0
        if confined:
            confine.limit_processes(
                confinement.processes if root else _threads_of(os.getuid()) + _SHARED_USER_PROCESSES
            )
            confine.restrict_files(confinement)
            if root:
                confine.become_nobody(confine.private_user(supervised_by))
        # After the change of user, which resets it. It reaches no further than this one process; `_end_all` does.
        _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != supervised_by:
            os._exit(126)
        if confined:
            listener = confine.filter_calls(confinement)
            if confinement.supervised_tcp:
                socket.send_fds(supervisor, [b"."], [listener])
        os.closerange(3, os.sysconf("SC_OPEN_MAX"))
        os.execve(command[0], command, dict(os.environ))
    except OSError as error:
        print(f"the sandbox could not be confined: {error}", file=sys.stderr, flush=True)
    os._exit(126)


def _watch(child: int, loopback: Loopback | None, listeners: list[int]) -> int:
    """Answer and reap until `child` has ended. Its exit status."""
    poll = select.poll()
    poll.register(os.pidfd_open(child), select.POLLIN)
    for listener in listeners:
        poll.register(listener, select.POLLIN)
    while True:
        for file, event in poll.poll(_REAP_INTERVAL_MS):
            if file in listeners and event & select.POLLIN and loopback is not None:
                loopback.answer()
            elif file in listeners:
                poll.unregister(file)
        with suppress(ChildProcessError):
            while (ended := os.waitpid(-1, os.WNOHANG))[0]:
                if ended[0] == child:
                    return ended[1]


def _told_to_end(number: int, frame: FrameType | None) -> NoReturn:
    _end_all(number)


def _end_all(status: int) -> NoReturn:
    """Kill everything below, and end as the confined process did. All that is not reaped yet is a child of this one."""
    me = os.getpid()
    while True:
        for process in descendants(me, processes()):
            with suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGKILL)
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            code = os.waitstatus_to_exitcode(status)
            os._exit(code if code >= 0 else 128 - code)
        time.sleep(0.001)


def _threads_of(user: int) -> int:
    count = 0
    for process in processes():
        with suppress(FileNotFoundError):
            count += process.threads if os.stat(f"/proc/{process.pid}").st_uid == user else 0
    return count


def _prctl(option: int, value: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, ctypes.c_ulong(value), 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), f"prctl({option}, {value})")


if __name__ == "__main__":
    main()
