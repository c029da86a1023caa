"""Tier A: every sandbox in namespaces of its own, by bubblewrap. It sees no process, network or file but its own.

https://github.com/containers/bubblewrap; needs the program `bwrap` and user namespaces, or root.
"""

import os
import resource
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from streams.errors import ConfigurationError
from streams.sandboxes.environment import Network
from streams.sandboxes.isolation.code_paths import code_paths, system_paths
from streams.sandboxes.isolation.launching import IN_MEMORY, Confinement, Launch, bare_variables, readable_file
from streams.sandboxes.isolation.limits import Limits
from streams.sandboxes.isolation.seccomp import compile_filter

_NOBODY = "65534"


class Bubblewrap:
    """Raises `ConfigurationError` when a program that it needs is not installed."""

    name = "bubblewrap"

    def __init__(self) -> None:
        self._bwrap = _program("bwrap", "bubblewrap")
        self._prlimit = _program("prlimit", "util-linux")

    @contextmanager
    def launch(self, command: Sequence[str], confinement: Confinement) -> Iterator[Launch]:
        rules = compile_filter(confinement.network, own_namespaces=True, own_signals=True)
        with readable_file(rules) as fd:
            yield Launch(
                command=(
                    *(self._bwrap, "--seccomp", str(fd)),
                    *_namespaces(confinement.network),
                    *_file_tree(confinement),
                    "--",
                    *(self._prlimit, *_limits(confinement.limits), "--"),
                    *command,
                ),
                variables=bare_variables(IN_MEMORY[0]),
                fds=(fd,),
            )


def _namespaces(network: Network) -> list[str]:
    options = ["--unshare-all", "--unshare-user", "--uid", _NOBODY, "--gid", _NOBODY, "--hostname", "sandbox"]
    # Bubblewrap's own first process would be one that no filter holds, and whose memory the sandbox could write.
    options += ["--cap-drop", "ALL", "--die-with-parent", "--new-session", "--as-pid-1"]
    if network is Network.REMOTE:
        options.append("--share-net")
    return options


def _file_tree(confinement: Confinement) -> list[str]:
    options = ["--proc", "/proc", "--dev", "/dev"]
    for path in IN_MEMORY:
        options += ["--size", str(confinement.limits.disk_mib * 2**20), "--perms", "0700", "--tmpfs", str(path)]
    for path in (*system_paths(confinement.network), *code_paths(), *confinement.readable):
        if path.is_symlink() and path.parent == Path("/"):
            # /bin and the like are links into /usr on most systems.
            options += ["--symlink", os.readlink(path), str(path)]
        else:
            options += ["--ro-bind", str(path), str(path)]
    # The root and /dev are file systems in memory too, without a limit to their size. Where the pool is root, so is the
    # sandbox in the eyes of /proc/sys, which asks for no privilege besides.
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
    # The kernel counts in each user namespace by itself; it does not count for root, which the warden then does alone.
    return [*options, f"--nproc={limits.processes}"]


def _program(name: str, package: str) -> str:
    if path := shutil.which(name):
        return path
    raise ConfigurationError(f"the program {name} is not on PATH. Remedy: install the system's package {package}.")
