"""Runs hostile programs under the isolation of a tier, and builds what they should not reach.

The programs are in `escapes` and `greed`; one that gets what it came for says ESCAPED.
"""

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

import streams
from ratchet_client.errors import ConfigurationError
from streams.environments.environment import Network
from streams.sandboxes.isolation.home import make_home, remove_home
from streams.sandboxes.isolation.landlock import Unconfined
from streams.sandboxes.isolation.launching import Confinement, Tier
from streams.sandboxes.isolation.resource_monitor import ResourceMonitor, Watch
from streams.sandboxes.isolation.settings import Limits
from streams.sandboxes.isolation.tiers import choose

HERE = Path(__file__).parent
ESCAPES = sorted((HERE / "escapes").glob("*.py"))
# Programs wait until they are watched, as a worker waits for its first request.
_BEGIN = "import sys; sys.stdin.readline()\n"
SECRET = "hunter2"
TIERS = ("bubblewrap", "landlock")


def tier_called(name: str) -> Tier:
    """The tier. Skips the test, with the reason, where this machine cannot have it."""
    if name == "none":
        return Unconfined()
    assert name in ("bubblewrap", "landlock")
    try:
        return choose("bubblewrap" if name == "bubblewrap" else "landlock")
    except ConfigurationError as reason:
        pytest.skip(f"{reason}; install bubblewrap, or run on Linux 6.2 or newer, to run this test")


@dataclass(slots=True)
class Sandbox:
    """A program that runs isolated. `folder` is what was made for it."""

    process: subprocess.Popen[str]
    watch: Watch
    folder: Path

    def finish(self, timeout_s: float = 60) -> str:
        """All that it says until it has ended."""
        said, complaint = self.process.communicate(timeout=timeout_s)
        return said + complaint


@contextmanager
def started(
    tier: Tier,
    monitor: ResourceMonitor,
    program: Path,
    argument: str = "",
    *,
    network: Network = Network.NONE,
    limits: Limits | None = None,
    readable: tuple[Path, ...] = (),
) -> Iterator[Sandbox]:
    """`program`, started and ended as the pool does it with a worker."""
    folder = make_home()
    limits = limits or Limits()
    confinement = Confinement(folder, network, limits, readable)
    with tier.launch((sys.executable, "-I", "-S", "-c", _BEGIN + program.read_text(), argument), confinement) as launch:
        process = subprocess.Popen(
            launch.command,
            env=launch.variables,
            pass_fds=launch.fds,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
    watch = monitor.watch(process.pid, limits, launch.files)
    try:
        with process:
            assert process.stdin is not None
            process.stdin.write("\n")
            process.stdin.flush()
            try:
                yield Sandbox(process, watch, folder)
            finally:
                watch.kill()
    finally:
        monitor.forget(watch)
        remove_home(folder)


@dataclass(slots=True)
class Outside:
    """Things on this machine, outside of every sandbox, that a hostile program is told about."""

    folder: Path
    code: Path
    victim: subprocess.Popen[bytes]
    hosts: list[str]
    ports: dict[str, int]
    heard: list[str] = field(default_factory=list)

    def as_argument(self) -> str:
        told = {
            "secret": str(self.folder / "secret"),
            "mutable": str(self.folder / "mutable"),
            "folder": str(self.folder),
            "code": str(self.code / "module.py"),
            "streams": str(streams.__file__),
            "unix": str(self.folder / "unix"),
            "datagrams": str(self.folder / "datagrams"),
            "abstract": f"ratchet-test-{os.getpid()}",
            "victim": self.victim.pid,
            "parent": os.getpid(),
            "hosts": self.hosts,
            **self.ports,
        }
        return json.dumps(told)

    def harm(self) -> list[str]:
        """What was done to it."""
        done = list(self.heard)
        if self.victim.poll() is not None:
            done.append("the victim died")
        if os.getpriority(os.PRIO_PROCESS, self.victim.pid) != os.getpriority(os.PRIO_PROCESS, 0):
            done.append("the victim was slowed down")
        mutable = self.folder / "mutable"
        if not mutable.exists() or mutable.read_text() != "as it was" or mutable.stat().st_mode & 0o777 != 0o644:
            done.append("a file was changed")
        if sorted(path.name for path in self.folder.iterdir()) != ["datagrams", "mutable", "secret", "unix"]:
            done.append("a file came or went")
        if (self.code / "module.py").read_text() != "poisoned = False":
            done.append("code was changed")
        return done


@contextmanager
def outside(folder: Path) -> Iterator[Outside]:
    """A secret, files that everybody may write, code, servers of several kinds, and a process to hurt."""
    with ExitStack() as stack:
        # A user of a sandbox's own must be stopped by its isolation, and not by permissions on the way.
        for name in ("files", "code"):
            (folder / name).mkdir()
        files, code = folder / "files", folder / "code"
        files.chmod(0o777)
        (files / "secret").write_text(SECRET)
        (files / "mutable").write_text("as it was")
        (code / "module.py").write_text("poisoned = False")
        victim = stack.enter_context(subprocess.Popen(["sleep", "600"], env={"KEY": SECRET}))
        stack.callback(victim.kill)
        world = Outside(files, code, victim, _own_addresses(), {})
        name = f"\0ratchet-test-{os.getpid()}"
        for kind, family, type_, address in (
            ("tcp", socket.AF_INET, socket.SOCK_STREAM, ("0.0.0.0", 0)),
            ("high", socket.AF_INET, socket.SOCK_STREAM, ("127.0.0.1", 0)),
            ("udp", socket.AF_INET, socket.SOCK_DGRAM, ("0.0.0.0", 0)),
            ("unix", socket.AF_UNIX, socket.SOCK_STREAM, str(files / "unix")),
            ("abstract", socket.AF_UNIX, socket.SOCK_STREAM, name),
            ("datagrams", socket.AF_UNIX, socket.SOCK_DGRAM, str(files / "datagrams")),
        ):
            server = stack.enter_context(socket.socket(family, type_))
            server.bind(address)
            stack.callback(_serve(server, kind, world.heard))
            if family == socket.AF_INET:
                world.ports[kind] = server.getsockname()[1]
            elif isinstance(address, str) and not address.startswith("\0"):
                os.chmod(address, 0o777)
        yield world


def _serve(server: socket.socket, kind: str, heard: list[str]) -> Callable[[], None]:
    """Note who comes, on a thread, until the function that this gives is called."""
    ended = threading.Event()

    def serve() -> None:
        while not ended.is_set():
            with suppress(TimeoutError):
                if server.type == socket.SOCK_DGRAM:
                    _, sender = server.recvfrom(64)
                    if sender:
                        server.sendto(b"heard", sender)
                else:
                    server.accept()[0].close()
                heard.append(f"the server for {kind} was reached")

    server.settimeout(0.05)
    if server.type == socket.SOCK_STREAM:
        server.listen()
    thread = threading.Thread(target=serve, daemon=True)
    thread.start()

    def end() -> None:
        ended.set()
        thread.join()

    return end


def _own_addresses() -> list[str]:
    """Of this machine: loopback, and the one it has on the network, if it is on one."""
    addresses = ["127.0.0.1"]
    with suppress(OSError), socket.socket(type=socket.SOCK_DGRAM) as probe:
        probe.connect(("192.0.2.1", 9))  # sends nothing
        addresses.append(probe.getsockname()[0])
    return addresses
