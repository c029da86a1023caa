"""A network, mounts and a clock of the soak's own, so that they can fail without anybody else's failing.

What a machine does not let us have is told with the reason, and the faults that need it are left out.
"""

import ctypes
import importlib.util
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.soak.faults import Fault, Kind

_NEW_MOUNTS, _NEW_NETWORK = 0x00020000, 0x40000000
_LEFT_WHEN_FULL = 64 * 1024
NOT_ROOT = "it needs root"
_DELAY = ("delay", "80ms", "40ms", "loss", "2%")


@dataclass(frozen=True, slots=True)
class Surroundings:
    """Where a soak runs: `disk` is the mount of the home, and None where it cannot be made full; `clock` likewise.

    `missing` says for each kind of fault that is not possible why it is not.
    """

    missing: dict[Kind, str]
    disk: Path | None
    disk_mib: int
    clock: Path | None
    faketime: Path | None

    def variables(self) -> dict[str, str]:
        """What gives a process, and what it starts, the soak's clock."""
        if self.clock is None or self.faketime is None:
            return {}
        return {
            "LD_PRELOAD": str(self.faketime),
            "FAKETIME_TIMESTAMP_FILE": str(self.clock),
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "FAKETIME_CACHE_DURATION": "1",
        }

    @contextmanager
    def during(self, fault: Fault) -> Iterator[None]:
        """Have a fault of the disk, the network or the clock meanwhile."""
        match fault.kind:
            case Kind.DISK:
                assert self.disk is not None
                usage = shutil.disk_usage(self.disk)
                begin = ["mount", "-o", f"remount,size={usage.used + _LEFT_WHEN_FULL}", str(self.disk)]
                end = ["mount", "-o", f"remount,size={self.disk_mib}m", str(self.disk)]
            case Kind.CUT:
                begin, end = (["ip", "link", "set", "lo", state] for state in ("down", "up"))
            case Kind.SLOW:
                begin = ["tc", "qdisc", "add", "dev", "lo", "root", "netem", *_DELAY]
                end = ["tc", "qdisc", "del", "dev", "lo", "root"]
            case _:
                assert self.clock is not None
                begin, end = _set(self.clock, fault.size), _set(self.clock, 0)
        subprocess.run(begin, check=True, capture_output=True)
        try:
            yield
        finally:
            subprocess.run(end, check=True, capture_output=True)


def _set(clock: Path, seconds: int) -> list[str]:
    return ["sh", "-c", f"echo {seconds:+d} > {clock}.new && mv {clock}.new {clock}"]


def surround(home: Path, folder: Path, disk_mib: int) -> Surroundings:
    """Give this process, and what it starts from now on, surroundings of its own, and mount a disk on `home`.

    They end with the last of these processes. Call it before there are threads. `folder` has the file of the clock.
    """
    home.mkdir(parents=True)
    missing, disk = dict[Kind, str](), None
    if os.geteuid() != 0:
        missing = dict.fromkeys((Kind.DISK, Kind.CUT, Kind.SLOW), NOT_ROOT)
    elif (problem := _unshared(home, disk_mib)) is not None:
        missing = dict.fromkeys((Kind.DISK, Kind.CUT, Kind.SLOW), problem)
    else:
        disk = home
        probe = subprocess.run(["tc", "qdisc", "add", "dev", "lo", "root", "netem", *_DELAY], capture_output=True)
        if probe.returncode == 0:
            subprocess.run(["tc", "qdisc", "del", "dev", "lo", "root"], check=True)
        else:
            missing[Kind.SLOW] = f"tc has no netem here: {probe.stderr.decode().strip()}"
    clock, faketime = None, _faketime()
    if faketime is None:
        missing[Kind.CLOCK] = "it needs libfaketime: pip install libfaketime"
    else:
        clock = folder / "clock"
        clock.write_text("+0\n")
    return Surroundings(missing, disk, disk_mib, clock, faketime)


def _unshared(home: Path, disk_mib: int) -> str | None:
    """Leave the machine's network and mounts; returns why that is not possible."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_NEW_MOUNTS | _NEW_NETWORK) != 0:
        return f"the kernel gives no namespaces: {os.strerror(ctypes.get_errno())}"
    commands = (
        ["mount", "--make-rprivate", "/"],
        ["mount", "-t", "tmpfs", "-o", f"size={disk_mib}m", "soak", str(home)],
        ["ip", "link", "set", "lo", "up"],
    )
    for command in commands:
        done = subprocess.run(command, capture_output=True)
        if done.returncode != 0:
            return f"{' '.join(command)}: {done.stderr.decode().strip()}"
    return None


def _faketime() -> Path | None:
    """The library of PyPI's libfaketime, if it is installed and works here."""
    found = importlib.util.find_spec("libfaketime")
    if found is None or found.origin is None:
        return None
    library = Path(found.origin).parent / "vendor" / "libfaketime" / "src" / "libfaketime.so.1"
    return library if library.is_file() else None
