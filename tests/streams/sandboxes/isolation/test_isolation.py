import asyncio
import os
import shutil
import socket
import stat
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from ratchet_client.errors import ConfigurationError
from streams.environments.environment import Network
from streams.errors import SandboxError
from streams.sandboxes.isolation import landlock
from streams.sandboxes.isolation.home import make_home, remove_home
from streams.sandboxes.isolation.landlock import Unconfined
from streams.sandboxes.isolation.launching import Confinement, Tier
from streams.sandboxes.isolation.resource_monitor import ResourceMonitor
from streams.sandboxes.isolation.settings import Limits
from streams.sandboxes.isolation.tiers import choose
from tests.streams.sandboxes.isolated import HERE, TIERS, started, tier_called

TALK = HERE / "programs" / "talk_to_itself.py"


@pytest.fixture(scope="module")
def monitor() -> Iterator[ResourceMonitor]:
    with ResourceMonitor() as monitor:
        yield monitor


@pytest.fixture(scope="module", params=(*TIERS, "none"))
def tier(request: pytest.FixtureRequest) -> Tier:
    return tier_called(request.param)


@pytest.fixture
def folder() -> Iterator[Path]:
    folder = make_home()
    yield folder
    remove_home(folder)


def test_the_best_tier_that_works_is_chosen() -> None:
    assert choose("auto").name == tier_called("bubblewrap").name


def test_without_user_namespaces_landlock_is_chosen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refusing = tmp_path / "bwrap"
    refusing.write_text("#!/bin/sh\necho 'bwrap: No permissions to create new namespace' >&2\nexit 1\n")
    refusing.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    with pytest.raises(ConfigurationError, match="No permissions to create new namespace"):
        choose("bubblewrap")
    assert choose("auto").name == tier_called("landlock").name


def test_without_any_tier_it_refuses_and_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr(landlock, "landlock_abi", lambda: 2)
    with pytest.raises(ConfigurationError, match=r"bwrap is not on PATH.*version 2, and 3 is needed.*isolation.md"):
        choose("auto")


def test_running_without_isolation_is_a_choice_that_is_warned_of(capsys: pytest.CaptureFixture[str]) -> None:
    assert choose("none").name == "none"
    assert "sandboxes are not isolated" in capsys.readouterr().out


async def test_lines_go_in_and_come_out_as_without_a_tier(tier: Tier, folder: Path) -> None:
    command = (sys.executable, "-I", "-c", "import sys\nfor line in sys.stdin: print(line.upper(), end='', flush=True)")
    with tier.launch(command, Confinement(folder)) as launch:
        process = await asyncio.create_subprocess_exec(
            *launch.command,
            env=launch.variables,
            pass_fds=launch.fds,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            start_new_session=True,
        )
    assert process.stdin is not None
    assert process.stdout is not None
    for line in (b"one\n", b"two\n"):
        process.stdin.write(line)
        assert await process.stdout.readline() == line.upper()
    process.stdin.close()
    assert await process.stdout.read() == b""
    assert await process.wait() == 0


def test_the_sandbox_has_the_exit_status_of_its_program(tier: Tier, monitor: ResourceMonitor, tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text("raise SystemExit(7)")
    with started(tier, monitor, program) as sandbox:
        sandbox.finish()
        assert sandbox.process.returncode == 7


def test_its_variables_are_few_and_its_home_is_its_own(tier: Tier, monitor: ResourceMonitor, tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(
        "import os, tempfile\n"
        "assert os.environ.keys() <= {'PATH', 'LANG', 'HOME', 'TMPDIR', 'PWD'}, os.environ\n"
        "assert os.listdir() == os.listdir(os.environ['HOME']) == []\n"
        "tempfile.NamedTemporaryFile().close()\n"
        "open('left behind', 'w').close()\n"
        "print('well')"
    )
    for _ in range(2):
        with started(tier, monitor, program) as sandbox:
            assert sandbox.finish() == "well\n"
        assert not sandbox.folder.exists()


def test_with_loopback_a_sandbox_can_connect_to_itself(tier: Tier, monitor: ResourceMonitor) -> None:
    with started(tier, monitor, TALK, network=Network.LOOPBACK) as sandbox:
        assert sandbox.finish() == "said heard\n" * 3


@pytest.mark.parametrize("name", TIERS)
def test_without_a_network_a_sandbox_has_no_sockets(name: str, monitor: ResourceMonitor) -> None:
    with started(tier_called(name), monitor, TALK) as sandbox:
        assert "not implemented" in sandbox.finish()


def test_a_port_opened_in_a_sandbox_is_unreachable_from_outside(monitor: ResourceMonitor) -> None:
    def reached(tier: Tier) -> int:
        program = HERE / "programs" / "listen_on_every_address.py"
        count = 0
        with started(tier, monitor, program, "{}", network=Network.LOOPBACK) as sandbox:
            assert sandbox.process.stdout is not None
            ports = [line.split()[1] for line in iter(sandbox.process.stdout.readline, "DONE\n") if "PORT" in line]
            for port in ports:
                with suppress(OSError), socket.create_connection(("127.0.0.1", int(port)), timeout=2):
                    count += 1
        return count

    assert [reached(tier_called(name)) for name in TIERS] == [0, 0]
    assert reached(Unconfined()) == 2


def test_links_in_a_home_are_removed_and_not_followed(tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    kept.mkdir()
    (kept / "file").write_text("here")
    folder = make_home()
    (folder / "home" / "link").symlink_to(kept)
    (folder / "home" / "file").symlink_to(kept / "file")
    os.link(kept / "file", folder / "home" / "second")
    os.mkfifo(folder / "home" / "pipe")
    remove_home(folder)
    assert not folder.exists()
    assert (kept / "file").read_text() == "here"


def test_a_home_is_removed_however_deep_and_locked_it_is() -> None:
    folder = make_home()
    start = Path.cwd()
    os.chdir(folder / "home")
    try:
        for _ in range(2000):
            os.mkdir("down")
            os.chdir("down")
        os.mkdir("locked", 0o000)
    finally:
        os.chdir(start)
    with pytest.raises((RecursionError, OSError)):
        shutil.rmtree(folder)
    remove_home(folder)
    assert not list(folder.parent.glob(f"{folder.name}*"))


def test_a_sandbox_cannot_reach_the_files_that_the_pool_keeps_about_it(tier: Tier, folder: Path) -> None:
    with tier.launch(("true",), Confinement(folder)) as launch:
        assert launch.files in (None, folder / "home")
    assert stat.S_IMODE((folder / "home").stat().st_mode) == 0o700


def test_a_resource_monitor_that_has_ended_refuses_to_watch() -> None:
    with ResourceMonitor() as monitor:
        pass
    with pytest.raises(SandboxError, match="resource monitor does not run"):
        monitor.watch(os.getpid(), Limits(), None)


def test_a_process_may_be_forked_and_killed_as_branching_does(tier: Tier, monitor: ResourceMonitor) -> None:
    with started(tier, monitor, HERE / "programs" / "fork_as_branching_does.py") as sandbox:
        assert sandbox.finish() == "well\n"
