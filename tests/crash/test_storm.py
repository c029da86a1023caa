"""Random kills under load. `RATCHET_CRASH_KILLS` says how many; `python -m tests.crash.storm` runs longer."""

import os
import random
from pathlib import Path

import pytest

from tests.crash.storm import StormPlan, storm

KILLS = int(os.environ.get("RATCHET_CRASH_KILLS", "12"))


@pytest.mark.nightly
def test_random_kills_under_load_lose_and_duplicate_nothing(tmp_path: Path) -> None:
    report = storm(tmp_path, StormPlan(kills=KILLS, seed=random.randrange(2**32)), tell=print)
    assert report.findings == ()
    assert (sum(report.kills.values()), report.lost, report.doubled) == (KILLS, 0, 0)
    assert report.acknowledged > 0
    assert report.malformed > 0
    assert report.branch_results > 0
