"""Tier A: every sandbox in namespaces of its own, by bubblewrap. It sees no process, network or file but its own.

https://github.com/containers/bubblewrap; needs the program `bwrap` and user namespaces, or root.

Where the pool is root, the sandbox becomes a user of its own, and gets no user namespace: in one it would still be root
for what takes no capability, such as writing /proc/sys, and for the number of processes, which has no limit for root.
"""

import os
import resource
import secrets
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from ratchet_client.errors import ConfigurationError
from streams.environments.environment import Network
from streams.sandboxes.isolation.code_paths import code_paths, system_paths
from streams.sandboxes.isolation.launching import IN_MEMORY, Confinement, Launch, bare_variables, readable_file
from streams.sandboxes.isolation.seccomp import compile_filter
from streams.sandboxes.isolation.settings import Limits

_NOBODY = "65534"
# Users that no account has, and none of tier B.
_FIRST_USER, _USERS = 2_100_000_000, 2**24


class Bubblewrap:
    """Raises `ConfigurationError` when a program that it needs is not installed."""

    name = "bubblewrap"

    def __init__(self) -> None:
        self._bwrap = _program("bwrap", "bubblewrap")
        self._prlimit = _program("prlimit", "util-linux")
        self._setpriv = _program("setpriv", "util-linux") if os.geteuid() == 0 else ""

    @contextmanager
    def launch(self, command: Sequence[str], confinement: Confinement) -> Iterator[Launch]:
        rules = compile_filter(confinement.network, own_namespaces=True, own_signals=True)
        with readable_file(rules) as fd:
            yield Launch(
                command=(
                    *(self._bwrap, "--seccomp", str(fd)),
                    *_namespaces(confinement.network, root=bool(self._setpriv)),
                    *_file_tree(confinement),
                    "--",
                    *(self._prlimit, *_limits(confinement.limits), "--"),
                    *self._become_nobody(),
                    *command,
                ),
                variables=bare_variables(IN_MEMORY[0]),
                fds=(fd,),
            )

    def _become_nobody(self) -> tuple[str, ...]:
        if not self._setpriv:
            return ()
        user = str(_FIRST_USER + secrets.randbelow(_USERS))
        return (self._setpriv, f"--reuid={user}", f"--regid={user}", "--clear-groups", "--inh-caps=-all", "--")


def _namespaces(network: Network, *, root: bool) -> list[str]:
    options = ["--unshare-ipc", "--unshare-pid", "--unshare-uts", "--unshare-cgroup-try", "--hostname", "sandbox"]
    if network is not Network.REMOTE:
        options.append("--unshare-net")
    options += ["--die-with-parent", "--new-session", "--cap-drop", "ALL"]
    if root:
        return [*options, "--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID"]
    # Bubblewrap's own first process has no filter, and one of the same user could write its memory.
    return [*options, "--as-pid-1", "--unshare-user", "--uid", _NOBODY, "--gid", _NOBODY]


def _file_tree(confinement: Confinement) -> list[str]:
    options = ["--proc", "/proc", "--dev", "/dev"]
    for path in IN_MEMORY:
        options += ["--size", str(confinement.limits.disk_mib * 2**20), "--perms", "0777", "--tmpfs", str(path)]
    paths = (*system_paths(confinement.network), *code_paths(), *confinement.readable)
    # Bubblewrap makes the folders above them for root alone.
    for above in sorted({above for path in paths for above in path.parents} - {Path("/")}):
        options += ["--perms", "0755", "--dir", str(above)] if above not in paths else []
    for path in paths:
        if path.is_symlink() and path.parent == Path("/"):
            # /bin and the like are links into /usr on most systems.
            options += ["--symlink", os.readlink(path), str(path)]
        else:
            options += ["--ro-bind", str(path), str(path)]
    # The root and /dev are file systems in memory too, without a limit to their size.
    for folder in ("/proc", "/dev", "/"):
        options += ["--remount-ro", folder]
    return [*options, "--chdir", str(IN_MEMORY[0])]


def _limits(limits: Limits) -> list[str]:
    names = {
        resource.RLIMIT_DATA: "data",
        resource.RLIMIT_FSIZE: "fsize",
        resource.RLIMIT_NOFILE: "nofile",
        resource.RLIMIT_CORE: "core",
        resource.RLIMIT_MSGQUEUE: "msgqueue",
    }
    options = [f"--{names[kind]}={most}" for kind, most in limits.of_a_process().items()]
    # The kernel counts by user, and in each user namespace by itself.
    return [*options, f"--nproc={limits.processes}"]


def _program(name: str, package: str) -> str:
    if path := shutil.which(name):
        return path
    raise ConfigurationError(f"the program {name} is not on PATH. Install the system's package {package}.")
