"""The interface of a tier: the pool says what a sandbox may do, the tier how it is started."""

import os
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from ratchet_client.errors import ConfigurationError
from streams.environments.environment import Network
from streams.runtime.java import java_executable
from streams.sandboxes.isolation.settings import Limits

IN_MEMORY = (Path("/tmp"), Path("/dev/shm"))
"""The writable parts of a sandbox's own file tree: its home, and the shared memory of its programs."""


@dataclass(frozen=True, slots=True)
class Confinement:
    """The permissions of one sandbox. `readable` is what it reads besides the system and the code of installed
    packages.

    `folder` is what `make_home` has made for it. A tier that gives the sandbox a home in memory does not use it.
    """

    folder: Path
    network: Network = Network.NONE
    limits: Limits = field(default_factory=Limits)
    readable: tuple[Path, ...] = ()


@dataclass(frozen=True, slots=True)
class Launch:
    """Launch parameters of a confined process: its whole command line, all of its variables, and the files it inherits.

    `files` is the folder on disk that the sandbox writes in, or nothing where it writes in memory only.
    Start it from a thread that lasts as long as the sandbox may, in a session of its own, have the resource monitor
    watch it, and end it by `Watch.kill`. Standard input, output and error are the caller's; they work as without a
    tier.
    """

    command: tuple[str, ...]
    variables: dict[str, str]
    fds: tuple[int, ...]
    files: Path | None = None


class Tier(Protocol):
    """One way to isolate a process."""

    name: str

    def launch(self, command: Sequence[str], confinement: Confinement) -> AbstractContextManager[Launch]:
        """Return the launch parameters of `command`, isolated, in its home folder.

        The files it inherits are closed at the end.
        """
        ...


def bare_variables(home: Path) -> dict[str, str]:
    """Nothing of the parent's variables reaches a sandbox: no secret, no setting, no proxy."""
    variables = {"PATH": os.defpath, "LANG": "C.UTF-8", "HOME": str(home), "TMPDIR": str(home)}
    with suppress(ConfigurationError):
        # Only some environments need Java; one that does says so itself.
        variables["PATH"] = f"{java_executable().parent}{os.pathsep}{os.defpath}"
    return variables


@contextmanager
def readable_file(content: bytes) -> Iterator[int]:
    """A file descriptor that `content` is read from, in memory and without a name."""
    fd = os.memfd_create("ratchet-sandbox")
    try:
        os.write(fd, content)
        os.lseek(fd, 0, os.SEEK_SET)
        yield fd
    finally:
        os.close(fd)
