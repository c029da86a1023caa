"""`ratchet run` with everything real: what dies is started again, and nothing is left behind."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import httpx
import pytest

from daemon.config import EngineSettings, Settings
from daemon.roles import Role
from daemon.supervisor import Supervisor, inference_service
from streams.errors import SupervisorError
from streams.runtime.logs import LogLevel, LogSettings
from streams.runtime.processes import free_port
from streams.store.settings import StoreSettings
from tests.waiting import until

ENOUGH_S = 90.0


def parents() -> dict[int, int]:
    """The parent of every process that has not ended."""
    found = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, parent = path.read_text().rpartition(")")[2].split()[:2]
        except OSError:
            continue
        if state != "Z":
            found[int(path.parent.name)] = int(parent)
    return found


def descendants(pid: int) -> set[int]:
    tree, found = parents(), {pid}
    while more := {child for child, parent in tree.items() if parent in found} - found:
        found |= more
    return found - {pid}


def answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=5).is_success
    except httpx.HTTPError:
        return False


@dataclass(frozen=True, slots=True)
class Running:
    process: subprocess.Popen[bytes]
    control: str
    store: str

    def pid_of(self, role: str) -> int | None:
        """The process that the supervisor runs for the role now."""
        for pid in descendants(self.process.pid):
            try:
                if f"--roles\0{role}\0" in Path(f"/proc/{pid}/cmdline").read_text():
                    return pid
            except OSError:
                continue
        return None

    def restarted(self, role: str, before: int) -> bool:
        return self.pid_of(role) not in (None, before)


@pytest.fixture
def running(tiny_base: Path, tmp_path: Path) -> Iterator[Running]:
    """`ratchet run` with the embedded broker, until everything answers."""
    ports = {part: free_port() for part in ("STORE", "ENGINE", "SERVING")}
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RATCHET_")}
    environment |= {f"RATCHET_{part}__PORT": str(port) for part, port in ports.items()}
    environment |= {"RATCHET_HOME": str(tmp_path / "home"), "RATCHET_MODEL": str(tiny_base)}
    environment |= {"RATCHET_ENGINE__THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[2])}
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "daemon.cli", "run", "--roles", "record,branch,serve"],
            cwd=tmp_path,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    try:
        until(lambda: process.poll() is not None or b"the log is at" in (tmp_path / "log").read_bytes(), "it starts")
        assert process.poll() is None, (tmp_path / "log").read_text()
        yield Running(process, *(f"http://127.0.0.1:{ports[part]}/status" for part in ("SERVING", "STORE")))
    finally:
        left = descendants(process.pid)
        process.kill()
        process.wait()
        for pid in left & parents().keys():
            os.kill(pid, signal.SIGKILL)


@pytest.mark.slow
def test_a_role_that_was_killed_is_started_again_and_ctrl_c_ends_everything(running: Running) -> None:
    assert answers(running.control)
    assert answers(running.store)
    for role, address in (("record", running.store), ("serve", running.control)):
        before = running.pid_of(role)
        assert before is not None
        os.kill(before, signal.SIGKILL)
        until(partial(running.restarted, role, before), f"{role} is back")
        until(partial(answers, address), f"{role} answers")
    everything = descendants(running.process.pid)
    assert len(everything) >= 5  # the broker, the inference server and three roles
    running.process.send_signal(signal.SIGINT)
    assert running.process.wait(timeout=ENOUGH_S) == 0
    until(lambda: not everything & parents().keys(), "every process has ended")


@pytest.mark.nightly
def test_nothing_outlives_a_supervisor_that_was_killed(running: Running) -> None:
    everything = descendants(running.process.pid)
    assert len(everything) >= 5
    running.process.kill()
    running.process.wait()
    until(lambda: not everything & parents().keys(), "every process has ended")


@pytest.mark.nightly
def test_without_its_broker_everything_ends_with_an_error(running: Running, tmp_path: Path) -> None:
    everything = descendants(running.process.pid)
    brokers = [pid for pid in everything if b"--storage-engine" in Path(f"/proc/{pid}/cmdline").read_bytes()]
    assert len(brokers) == 1
    os.kill(brokers[0], signal.SIGKILL)
    assert running.process.wait(timeout=ENOUGH_S) == 1
    assert "ratchet: the embedded broker died" in (tmp_path / "log").read_text().splitlines()[-1]
    until(lambda: not everything & parents().keys(), "every process has ended")


@pytest.mark.slow
async def test_a_role_that_does_not_start_is_named_with_its_last_output_and_nothing_is_left(tmp_path: Path) -> None:
    before = descendants(os.getpid())
    settings = Settings(home=tmp_path, store=StoreSettings(path=tmp_path, port=free_port())).settled()
    with pytest.raises(SupervisorError, match=rf"record did not start: .*{tmp_path}.*logs/record\.log"):
        async with Supervisor(settings, tmp_path, (Role.RECORD,)):
            pytest.fail("a folder is not a database")
    assert descendants(os.getpid()) <= before


@pytest.mark.slow
@pytest.mark.parametrize(("level", "told"), [("info", ["inference engine started"]), ("warning", [])])
async def test_the_engine_logs_from_the_level_on_that_is_set(
    level: LogLevel, told: list[str], tiny_base: Path, tmp_path: Path
) -> None:
    log, engine = LogSettings(format="json", level=level), EngineSettings(port=free_port(), threads=1)
    service = inference_service(Settings(home=tmp_path, log=log, engine=engine).settled(), tiny_base)
    await service.start()
    try:
        await service.ready()
    finally:
        await service.stop()
    assert [json.loads(line)["event"] for line in service.log_file.read_text().splitlines()] == told
