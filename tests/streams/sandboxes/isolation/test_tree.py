"""Nothing that a sandbox starts lives on, at whatever moment of a fork it is killed."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from streams.sandboxes.isolation.tree import kill_tree, processes

ROUNDS = 40
LATEST_S = 0.014
# Pages of its own make each fork long. 36 is PR_SET_CHILD_SUBREAPER.
_ROOT = """
import ctypes, os, signal, sys
ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)
pages = bytearray(os.urandom(4096) * 20_000)
print("begun", flush=True)
for _ in range(40):
    if os.fork() == 0:
        os.execv(sys.executable, [sys.executable, "-I", "-S", "-c", "import time; time.sleep(60)", sys.argv[1]])
signal.pause()
"""


@pytest.mark.slow
def test_a_root_that_forks_while_it_is_killed_leaves_nothing() -> None:
    for number in range(ROUNDS):
        mark = f"{__name__}-{number}"
        root = subprocess.Popen([sys.executable, "-I", "-S", "-c", _ROOT, mark], stdout=subprocess.PIPE)
        with root:
            assert root.stdout is not None
            root.stdout.readline()
            time.sleep(LATEST_S * number / ROUNDS)
            kill_tree(root.pid)
        # The end of its output means that none that had inherited it is left either.
        assert root.returncode == -9
        assert [process.pid for process in processes() if mark in _command(process.pid)] == []


def test_a_root_that_is_dead_already_is_no_error() -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as root:
        time.sleep(0.2)
        kill_tree(root.pid)
    kill_tree(root.pid)
    assert root.returncode == 0


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return ""
