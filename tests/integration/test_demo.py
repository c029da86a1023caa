"""The demo as a user runs it, in its quick form."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tests.waiting import until

REPORT_KEYS = {
    "events": {"produced", "stored", "lost", "duplicated"},
    "branches": {"requested", "executed", "diverged"},
}
CYCLE_KEYS = {
    "adapter",
    "verdict",
    "champion_success",
    "candidate_success",
    "tasks",
    "gates",
    "practice",
    "seconds",
}


def start_demo(home: Path) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "daemon.cli", "demo", "--quick", "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"RATCHET_HOME": str(home)},
        start_new_session=True,
        # What a shell runs in the background ignores it, and so would the demo.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def running_from(home: Path) -> list[psutil.Process]:
    """Processes that were started for the demo in `home`: they carry it in their environment."""
    found = []
    for process in psutil.process_iter():
        try:
            if str(home) in process.environ().get("RATCHET_HOME", "") and process.pid != os.getpid():
                found.append(process)
        except (psutil.AccessDenied, psutil.NoSuchProcess, psutil.ZombieProcess):
            continue
    return found


@pytest.fixture
def home(embedded_home: Path, tmp_path: Path) -> Path:
    """Where the base model is converted already."""
    shutil.copytree(embedded_home, tmp_path, dirs_exist_ok=True, copy_function=os.link)
    return tmp_path


@pytest.mark.slow
def test_the_quick_demo_runs_the_whole_loop_and_accounts_for_every_event(home: Path) -> None:
    demo = start_demo(home)
    output, told = demo.communicate(timeout=1500)
    assert demo.returncode == 0, told[-2000:]
    report = json.loads(output)
    assert report == json.loads((home / "demo" / "report.json").read_text())
    # Two dozen tasks prove nothing, and sometimes nothing is promoted that could be rolled back.
    promoted = any(cycle["verdict"] == "PROMOTE" for cycle in report["cycles"])
    assert promoted == (report["rollback"] is not None)
    for key, parts in REPORT_KEYS.items():
        assert parts <= (report[key] or dict.fromkeys(parts)).keys()
    assert report["events"]["produced"] == report["events"]["stored"] > 0
    first, later = (cycle["practice"]["episodes"] for cycle in report["cycles"])
    assert first == 0
    assert later > 0
    assert report["events"]["stored"] > report["events"]["practice"] >= 2 * later
    assert report["events"]["lost"] == report["events"]["duplicated"] == 0
    assert report["branches"]["requested"] == report["branches"]["executed"] + report["branches"]["diverged"] > 0
    assert [CYCLE_KEYS - cycle.keys() for cycle in report["cycles"]] == [set(), set()]
    assert report["sabotage_verdict"] != "PROMOTE"
    assert "left unproven by --quick" in told
    assert running_from(home) == []


@pytest.mark.slow
def test_ctrl_c_ends_the_demo_and_all_its_processes(home: Path) -> None:
    demo = start_demo(home)
    until(lambda: demo.poll() is not None or len(running_from(home)) > 3, "its roles run", within_s=180)
    demo.send_signal(signal.SIGINT)
    _, told = demo.communicate(timeout=60)
    assert demo.returncode == 130, told[-2000:]
    assert running_from(home) == []
