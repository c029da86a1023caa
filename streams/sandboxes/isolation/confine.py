"""Confines the process that calls it as tier B does, for good. The supervisor's child does, and then is one.

They are resource limits, a user of its own where the caller is root, Landlock, and the filter of system calls.

Landlock's structures and numbers: linux/landlock.h, https://docs.kernel.org/userspace-api/landlock.html.
"""

import ctypes
import os
import resource
import struct
from collections.abc import Sequence
from typing import NamedTuple

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446  # of every architecture
_GET_ABI = 1
_RULE_PATH_BENEATH = 1

_EXECUTE, _WRITE, _READ, _LIST, _TRUNCATE, _IOCTL = 1 << 0, 1 << 1, 1 << 2, 1 << 3, 1 << 14, 1 << 15
_OF_FILES = _EXECUTE | _WRITE | _READ | _TRUNCATE | _IOCTL
_DEVICES_AND_SOCKETS = 1 << 6 | 1 << 9 | 1 << 11
_ALL = (1 << 16) - 1
_TCP = 0b11
_SCOPE_SOCKETS_AND_SIGNALS = 0b11

ABI_WITH_TRUNCATE = 3
_ABI_WITH_TCP = 4
_ABI_WITH_IOCTL = 5
ABI_WITH_SIGNALS = 6

_PR_SET_KEEPCAPS, _PR_SET_NO_NEW_PRIVS, _PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE = 8, 38, 47, 2
_CAP_DAC_READ_SEARCH = 2
_CAPABILITY_VERSION_3 = 0x20080522

_SET_MODE_FILTER, _NEW_LISTENER = 1, 1 << 3

# Users that no account has; one for each supervisor.
_FIRST_USER = 2_000_000_000


class ConfinementRules(NamedTuple):
    """The rules that the child is confined by. `rlimits` are pairs of `RLIMIT_…` and value."""

    home: str
    rlimits: Sequence[tuple[int, int]]
    processes: int
    readable: Sequence[str] = ()
    devices: Sequence[str] = ()
    tcp: bool = True
    supervised_tcp: bool = False
    seccomp: int = 0
    """The number of the system call."""
    rules: bytes = b""


_libc = ctypes.CDLL(None, use_errno=True)


def _call(name: str, *arguments: object) -> int:
    """Call a C function, its numbers as longs. Raises `OSError` for a negative answer."""
    longs = [ctypes.c_long(argument) if isinstance(argument, int) else argument for argument in arguments]
    answer: int = getattr(_libc, name)(*longs)
    if answer < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}{arguments}: {os.strerror(number)}")
    return answer


def landlock_abi() -> int:
    """The version of Landlock that this kernel has, 0 for none."""
    try:
        return _call("syscall", _CREATE_RULESET, None, 0, _GET_ABI)
    except OSError:
        return 0


def limit_resources(confinement: ConfinementRules) -> None:
    """Set the limits that need no privilege."""
    for kind, most in confinement.rlimits:
        _, hard = resource.getrlimit(kind)
        limit = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(kind, (limit, limit))


def restrict_files(confinement: ConfinementRules) -> None:
    """From here on only what `confinement` names can be opened, and only `home` be written."""
    abi = landlock_abi()
    handled = _ALL if abi >= _ABI_WITH_IOCTL else _ALL & ~_IOCTL
    tcp = _TCP if abi >= _ABI_WITH_TCP and not confinement.tcp else 0
    scoped = _SCOPE_SOCKETS_AND_SIGNALS if abi >= ABI_WITH_SIGNALS else 0
    # An older kernel takes the longer structure as long as what it does not know is zero.
    attributes = struct.pack("=QQQ", handled, tcp, scoped)
    ruleset = _call("syscall", _CREATE_RULESET, attributes, len(attributes), 0)
    for paths, allowed in (
        (confinement.readable, _READ | _LIST | _EXECUTE),
        (confinement.devices, _READ | _WRITE),
        ([confinement.home], handled & ~_DEVICES_AND_SOCKETS),
    ):
        for path in paths:
            _allow(ruleset, path, allowed)
    _call("prctl", _PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    _call("syscall", _RESTRICT_SELF, ruleset, 0)
    os.close(ruleset)


def _allow(ruleset: int, path: str, allowed: int) -> None:
    fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    if not os.path.isdir(path):
        allowed &= _OF_FILES
    _call("syscall", _ADD_RULE, ruleset, _RULE_PATH_BENEATH, struct.pack("=Qi", allowed, fd), 0)
    os.close(fd)


def become_nobody(user: int) -> None:
    """Give up root for `user`, without groups, and with no capability but to read what root installed for itself.

    Landlock still decides what that is. Nothing of this user's is shared with anybody: no file, process or limit.
    """
    readable = _permitted(_CAP_DAC_READ_SEARCH)
    _call("prctl", _PR_SET_KEEPCAPS, 1, 0, 0, 0)
    os.setgroups([])
    os.setresgid(user, user, user)
    os.setresuid(user, user, user)
    header = struct.pack("=Ii", _CAPABILITY_VERSION_3, 0)
    _call("capset", header, struct.pack("=6I", readable, readable, readable, 0, 0, 0))
    if readable:
        _call("prctl", _PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE, _CAP_DAC_READ_SEARCH, 0, 0)


def _permitted(capability: int) -> int:
    """The bit of `capability` if this process has it, else 0."""
    header = struct.pack("=Ii", _CAPABILITY_VERSION_3, 0)
    sets = ctypes.create_string_buffer(24)
    _call("capget", header, sets)
    return struct.unpack("=6I", sets.raw)[1] & 1 << capability  # type: ignore[no-any-return]


def private_user(supervisor: int) -> int:
    """The user of the sandbox below the process `supervisor`."""
    return _FIRST_USER + supervisor


def limit_processes(most: int) -> None:
    """Processes and threads of this user, its own included."""
    resource.setrlimit(resource.RLIMIT_NPROC, (most, most))


def filter_calls(confinement: ConfinementRules) -> int:
    """Load the filter. With supervised TCP, gives the file on which the supervisor is asked about some of the calls."""
    instructions = ctypes.create_string_buffer(confinement.rules, len(confinement.rules))
    program = struct.pack("@HP", len(confinement.rules) // 8, ctypes.addressof(instructions))
    return _call(
        "syscall", confinement.seccomp, _SET_MODE_FILTER, _NEW_LISTENER if confinement.supervised_tcp else 0, program
    )
