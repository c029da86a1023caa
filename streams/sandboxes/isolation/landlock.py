"""Tier B: a sandbox behind Landlock, a filter of system calls and resource limits, which needs no privilege at all.

Also starts sandboxes without isolation, where that is asked for: it is supervised and limited in the same way.
"""

import base64
import json
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import ratchet_client
import streams
from ratchet_client.errors import ConfigurationError
from streams.environments.environment import Network
from streams.sandboxes.isolation.code_paths import code_paths, system_paths
from streams.sandboxes.isolation.confine import ABI_WITH_SIGNALS, ABI_WITH_TRUNCATE, ConfinementRules, landlock_abi
from streams.sandboxes.isolation.launching import Confinement, Launch, bare_variables, readable_file
from streams.sandboxes.isolation.seccomp import call_numbers, compile_filter

_DEVICES = ("null", "zero", "full", "random", "urandom")
# About the machine, and nothing about its processes.
_MACHINE = ("cpuinfo", "meminfo", "stat", "filesystems", "version", "sys/vm/overcommit_memory", "sys/kernel/osrelease")

# Without `site`, which takes longer to load than all the rest, so it is told where the packages are.
_SUPERVISOR = """
import sys
sys.path += {folders!r}
from streams.sandboxes.isolation.init_process import main
main()
"""


class Landlock:
    """Raises `ConfigurationError` where the kernel's Landlock is missing or too old."""

    name = "landlock"

    def __init__(self) -> None:
        self._abi = landlock_abi()
        if self._abi < ABI_WITH_TRUNCATE:
            raise ConfigurationError(
                f"the kernel has Landlock version {self._abi}, and {ABI_WITH_TRUNCATE} is needed. "
                "A kernel of 6.2 or later, with landlock among its security modules (the option lsm=)."
            )

    @contextmanager
    def launch(self, command: Sequence[str], confinement: Confinement) -> Iterator[Launch]:
        network = confinement.network
        # Root gives each sandbox a user of its own, whose signals reach no other process.
        own_signals = self._abi >= ABI_WITH_SIGNALS or os.geteuid() == 0
        rules = compile_filter(network, own_namespaces=False, own_signals=own_signals)
        paths = (*system_paths(network), *code_paths(), *confinement.readable)
        enforced = ConfinementRules(
            home=str(_home(confinement)),
            rlimits=list(confinement.limits.of_a_process().items()),
            processes=confinement.limits.processes,
            readable=[*map(str, paths), *(f"/proc/{name}" for name in _MACHINE if Path("/proc", name).exists())],
            devices=[f"/dev/{name}" for name in _DEVICES],
            tcp=network is Network.REMOTE,
            supervised_tcp=network is Network.LOOPBACK,
            seccomp=call_numbers()["seccomp"],
            rules=rules,
        )
        with _supervised(command, enforced, confined=True) as launch:
            yield launch


class Unconfined:
    """No isolation at all, but limits, and an end for everything when the sandbox ends."""

    name = "none"

    @contextmanager
    def launch(self, command: Sequence[str], confinement: Confinement) -> Iterator[Launch]:
        enforced = ConfinementRules(
            home=str(_home(confinement)),
            rlimits=list(confinement.limits.of_a_process().items()),
            processes=confinement.limits.processes,
        )
        with _supervised(command, enforced, confined=False) as launch:
            yield launch


def _home(confinement: Confinement) -> Path:
    return confinement.folder / "home"


@contextmanager
def _supervised(command: Sequence[str], enforced: ConfinementRules, *, confined: bool) -> Iterator[Launch]:
    order = {
        "command": list(command),
        "confinement": {**enforced._asdict(), "rules": base64.b64encode(enforced.rules).decode()},
        "confined": confined,
        "numbers": call_numbers() if enforced.supervised_tcp else {},
    }
    program = _SUPERVISOR.format(folders=[str(Path(each.__path__[0]).parent) for each in (streams, ratchet_client)])
    with readable_file(json.dumps(order).encode()) as fd:
        yield Launch(
            command=(sys.executable, "-I", "-S", "-c", program, str(fd), str(os.getpid())),
            variables=bare_variables(Path(enforced.home)),
            fds=(fd,),
            files=Path(enforced.home),
        )
