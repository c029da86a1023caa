"""Settings of isolation: the tier, and how much one sandbox may use.

Limits are enforced by the kernel where it can, and by the resource monitor.
"""

import resource
from typing import Literal, TypeAlias

from pydantic import Field

from ratchet_client.settings import FrozenModel

Isolation: TypeAlias = Literal["auto", "bubblewrap", "landlock", "none"]

_MIB = 2**20
OBSERVATION_BYTES = _MIB
"""The most that one observation has by default."""


class Limits(FrozenModel):
    """Limits of one sandbox and everything that it starts. Use beyond them is refused, or ends the sandbox."""

    memory_mib: int = Field(
        default=2048,
        ge=16,
        description="Memory of all its processes together, in MiB. No single process can even ask for more.",
    )
    processes: int = Field(
        default=256, ge=1, description="Processes and threads together; a Java virtual machine has about 30."
    )
    disk_mib: int = Field(default=256, ge=1, description="What it keeps in its home folder, in MiB.")
    open_files: int = Field(default=256, ge=16, description="Open files of each process.")
    cpu_s: float = Field(
        default=600.0, gt=0, description="Processor time of all its processes from one request to the next, in seconds."
    )

    observation_kib: int = Field(
        default=OBSERVATION_BYTES // 1024,
        ge=1,
        description="What one observation has, with its tools, as JSON in UTF-8, in KiB; a larger one is refused.",
    )

    @property
    def observation_bytes(self) -> int:
        return self.observation_kib * 1024

    def of_a_process(self) -> dict[int, int]:
        """The limits that the kernel enforces per process: `RLIMIT_…` and its value.

        The number of processes is not here: the kernel counts them by user, and what a user is differs by tier.
        """
        return {
            # Not the address space: a Java virtual machine reserves far more addresses than it ever uses.
            resource.RLIMIT_DATA: self.memory_mib * _MIB,
            resource.RLIMIT_FSIZE: self.disk_mib * _MIB,
            resource.RLIMIT_NOFILE: self.open_files,
            resource.RLIMIT_CORE: 0,
            resource.RLIMIT_MSGQUEUE: 0,
        }
