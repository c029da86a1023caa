"""Hostile programs in each tier of isolation, and each once without isolation: a check that cannot fail is none."""

import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from streams.environments.environment import Network
from streams.sandboxes.isolation.landlock import Unconfined
from streams.sandboxes.isolation.launching import Tier
from streams.sandboxes.isolation.resource_monitor import ResourceMonitor
from tests.streams.sandboxes.isolated import ESCAPES, HERE, Outside, outside, started

# What these try is refused to a program that is not root even without isolation.
PRIVILEGED = {"open_kernel_settings", "mount", "leave_a_root", "open_odd_sockets", "open_installed_code"}
# These know the numbers of system calls of one architecture.
OF_X86_64 = {"make_forbidden_calls", "new_namespaces"}
# A file must be left open for this one, which `started` never does.
OPEN_FILES = HERE / "escapes" / "list_open_files.py"
PROGRAMS = [path for path in ESCAPES if platform.machine() == "x86_64" or path.stem not in OF_X86_64]
PROGRAMS.remove(OPEN_FILES)


@pytest.fixture
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Outside]:
    # Not the test's own folder, which only its owner may enter: isolation is to be what stops the program.
    folder = tmp_path_factory.mktemp("outside")
    with outside(folder) as world:
        yield world


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda path: path.stem)
def test_no_escape_program_gets_out_of_a_sandbox(
    program: Path, tier: Tier, monitor: ResourceMonitor, world: Outside
) -> None:
    """It may talk to itself, which takes more system calls than to be without a network."""
    with started(
        tier, monitor, program, world.as_argument(), network=Network.LOOPBACK, readable=(world.code,)
    ) as sandbox:
        said = sandbox.finish()
        assert "ESCAPED" not in said
        assert not world.harm()
        assert not sandbox.watch.breach


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda path: path.stem)
def test_the_same_program_gets_out_without_isolation(program: Path, monitor: ResourceMonitor, world: Outside) -> None:
    if program.stem in PRIVILEGED and os.geteuid() != 0:
        pytest.skip("only root can do this without isolation: run the tests as root to run this test")
    with started(Unconfined(), monitor, program, world.as_argument()) as sandbox:
        assert "ESCAPED" in sandbox.finish()


def test_no_open_file_of_the_pool_is_inherited(tier: Tier, monitor: ResourceMonitor, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("hunter2")
    with secret.open() as file:
        os.set_inheritable(file.fileno(), True)
        with started(tier, monitor, OPEN_FILES) as sandbox:
            assert sandbox.finish() == ""
        leaky = subprocess.run([sys.executable, OPEN_FILES], close_fds=False, capture_output=True, text=True)
        assert "ESCAPED" in leaky.stdout
