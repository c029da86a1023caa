"""Two minutes of a soak. `python -m tests.soak` runs longer."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from streams.runtime.processes import die_with_parent
from tests.crash.victims import ROOT
from tests.waiting import until


def started(out: Path, minutes: float, log: Path) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-m", "tests.soak", "--minutes", str(minutes), "--seed", "1", "--out", str(out)]
    environment = {name: value for name, value in os.environ.items() if name != "KAFKA_HOME"}
    parent = os.getpid()

    def begin() -> None:
        die_with_parent(parent)
        # What a shell runs in the background ignores it, and so would the soak.
        signal.signal(signal.SIGINT, signal.SIG_DFL)

    with log.open("wb") as output:
        return subprocess.Popen(command, cwd=ROOT, env=environment, stderr=output, preexec_fn=begin)


@pytest.mark.nightly
def test_two_minutes_of_faults_lose_and_double_nothing(tmp_path: Path) -> None:
    soak = started(tmp_path / "soak", 2, tmp_path / "log")
    assert soak.wait(1500) == 0, (tmp_path / "log").read_text()
    report = json.loads((tmp_path / "soak" / "report.json").read_text())
    assert [finding for finding in report["findings"] if not finding["holds"]] == []
    assert report["faults"]
    assert all(fault["stored_s"] is not None for fault in report["faults"])
    assert report["events"] > 0
    assert report["answers"] > 0
    assert report["verdicts"] > 0
    assert "| yes | nothing acknowledged is lost |" in (tmp_path / "soak" / "report.md").read_text()
    assert "<svg" in (tmp_path / "soak" / "resources.svg").read_text()


@pytest.mark.nightly
def test_ctrl_c_ends_a_soak_with_its_report(tmp_path: Path) -> None:
    log = tmp_path / "log"
    soak = started(tmp_path / "soak", 60, log)
    until(lambda: b"starting Ratchet" in log.read_bytes() or soak.poll() is not None, within_s=300)
    soak.send_signal(signal.SIGINT)
    assert soak.wait(900) == 0, log.read_text()
    report = json.loads((tmp_path / "soak" / "report.json").read_text())
    assert report["interrupted"]
    assert (report["faults"], report["events"]) == ([], 0)
