"""A crash point that is named kills its process, at the time that is named; all others cost nothing and do nothing."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ratchet_client.crash_points import VARIABLE, CrashPoint, armed
from ratchet_client.errors import ConfigurationError

ROOT = Path(__file__).parents[2]
THREE_TIMES = """
from ratchet_client.crash_points import CrashPoint, reach
for number in range(3):
    reach(CrashPoint.INSERT_BEFORE)
    reach(CrashPoint.COMMIT_BEFORE)
    print(number, flush=True)
"""


def run(setting: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, VARIABLE: setting}
    return subprocess.run(
        [sys.executable, "-c", THREE_TIMES], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60
    )


@pytest.mark.parametrize(
    ("setting", "printed"), [("store.commit:before", []), ("store.commit:before@3", ["0", "1"])], ids=str
)
def test_a_named_point_kills_its_process_at_the_named_count(setting: str, printed: list[str]) -> None:
    done = run(setting)
    assert done.returncode == -signal.SIGKILL
    assert done.stdout.split() == printed


@pytest.mark.parametrize("setting", ["", "store.commit:before@4", "log.ack:after"])
def test_a_point_that_is_not_named_or_not_reached_that_often_kills_nothing(setting: str) -> None:
    done = run(setting)
    assert (done.returncode, done.stdout.split()) == (0, ["0", "1", "2"])


@pytest.mark.parametrize("setting", ["store.comit:before", "COMMIT_BEFORE", "store.commit:before@0", "log.ack:after@x"])
def test_a_misspelt_setting_is_refused(setting: str) -> None:
    with pytest.raises(ConfigurationError, match="names no crash point"):
        armed(setting)
    assert "names no crash point" in run(setting).stderr


def test_every_point_is_reached_in_the_code() -> None:
    sources = "".join(
        path.read_text()
        for layer in ("clients", "streams", "learners", "evaluation", "daemon")
        for path in (ROOT / layer).rglob("*.py")
    )
    assert [point for point in CrashPoint if f"reach(CrashPoint.{point.name})" not in sources] == []
