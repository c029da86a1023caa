"""The demo as a user runs it, in its quick form."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections import defaultdict
from itertools import pairwise
from pathlib import Path

import psutil
import pytest

from daemon.demo.profile import Profile
from ops.partial_locks import DEMO
from tests.ops.partial import partial_environment
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


def start_demo(home: Path, *options: str) -> "subprocess.Popen[str]":
    """The quick demo in `home`, which finds what `make demo` installs and no more."""
    (home / "installed").mkdir()
    return subprocess.Popen(
        [sys.executable, "-m", "daemon.cli", "demo", "--quick", "--json", *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=partial_environment(DEMO, home / "installed") | {"RATCHET_HOME": str(home)},
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


def assert_profiled(home: Path) -> None:
    """Its phases follow each other to the end, and each process has worked in those that are its own."""
    profile = Profile.model_validate_json((home / "profile.json").read_text())
    assert all(phase.end == after.begin for phase, after in pairwise(profile.phases))
    assert profile.phases[-1].name == "stop"
    working = defaultdict[str, set[str]](set)
    for phase in profile.phases:
        working[phase.name] |= {name for name, use in phase.processes.items() if use.processor_s}
    assert {"agent", "inference", "serve"} <= working["agent"]
    assert {"branch", "branch sandboxes"} <= working["storing and branching"]
    assert "training" in working["cycle 1: training"]
    assert {"inference", "demo sandboxes"} <= working["cycle 1: gate"]
    assert "<svg" in (home / "profile.svg").read_text()


# Six minutes on a good machine, and a multiple of that on one without AVX512.
@pytest.mark.nightly
@pytest.mark.parametrize("scenario", ["helpdesk", "text-game"])
def test_the_quick_demo_runs_the_whole_loop_and_accounts_for_every_event(home: Path, scenario: str) -> None:
    demo = start_demo(home, "--profile", "--scenario", scenario)
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
    assert_profiled(home / "demo")


@pytest.mark.slow
def test_ctrl_c_ends_the_demo_and_all_its_processes(home: Path) -> None:
    demo = start_demo(home)
    until(lambda: demo.poll() is not None or len(running_from(home)) > 3, "its roles run", within_s=180)
    demo.send_signal(signal.SIGINT)
    _, told = demo.communicate(timeout=60)
    assert demo.returncode == 130, told[-2000:]
    assert running_from(home) == []
