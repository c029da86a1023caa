"""`ratchet environment replay` prints what is equal once, with a count."""

import pytest

from daemon.commands.replay import ReplayReport, _print
from streams.branching.replay import Replayed


def test_equal_errors_are_printed_once_with_their_count(capsys: pytest.CaptureFixture[str]) -> None:
    parted = tuple(
        Replayed(episode_id=f"e{n}", task_id="t", steps=2, reproduced=0, exact=False, reason="no tool: x")
        for n in range(12)
    )
    report = ReplayReport.model_construct(
        environment="desk", episodes=12, reproduced=0, judged_otherwise=(), parted=parted, left_out={}
    )
    _print(report)
    said = capsys.readouterr().out
    assert said.count("no tool: x") == 1
    assert "12 times: no tool: x" in said
    assert "more; --json" not in said
