"""Prometheus' own checks, for tests of what is written for it."""

import shutil
import subprocess
from pathlib import Path

import pytest

OPS = Path(__file__).parents[2] / "ops"
PROMETHEUS = OPS / "prometheus"

needs_promtool = pytest.mark.skipif(
    shutil.which("promtool") is None, reason="promtool is missing: apt-get install prometheus"
)


def promtool(*arguments: str, text: str | None = None) -> tuple[int, str]:
    """The exit status of promtool, and what it said."""
    done = subprocess.run(["promtool", *arguments], input=text, capture_output=True, text=True, timeout=120)
    return done.returncode, done.stdout + done.stderr
