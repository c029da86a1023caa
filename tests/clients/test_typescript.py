"""The client in JavaScript: its own tests, and a call with feedback over the real gateway."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from ops.partial_locks import ROOT
from streams.calls.records import CapturedCall, Feedback
from tests.daemon.inference.conftest import run_server
from tests.recorded import recorded_gateway

FOLDER = ROOT / "clients" / "typescript"
NODE = shutil.which("node")
pytestmark = pytest.mark.skipif(NODE is None, reason="no Node: install it, 20 or later, to run this test")


def run_tests(**variables: str) -> None:
    command = [str(NODE), "--test", "--test-reporter=spec"]
    done = subprocess.run(command, cwd=FOLDER, env=os.environ | variables, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout


def test_its_own_tests_pass() -> None:
    run_tests()


@pytest.mark.slow
def test_a_call_and_feedback_on_it_reach_the_log(tiny_base: Path) -> None:
    with run_server(tiny_base) as engine, recorded_gateway(engine) as gateway:
        run_tests(RATCHET_GATEWAY=gateway.address)
        records = gateway.records()
    (call,) = (record for record in records if isinstance(record, CapturedCall))
    (feedback,) = (record for record in records if isinstance(record, Feedback))
    assert (call.labels.episode, call.labels.task, call.labels.seed) == ("node", "lamps/1", 3)
    assert (feedback.receipt, feedback.verifier, feedback.score) == (call.receipt, "house", 0.25)
