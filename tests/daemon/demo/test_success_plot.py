"""The picture of a demo's result has the figures of its report."""

import re
from pathlib import Path

from daemon.demo.success_plot import draw
from tests.daemon.demo.test_plan import REPORT


def test_the_picture_has_both_sides_of_each_gate_and_of_the_unseen_tasks(tmp_path: Path) -> None:
    path = tmp_path / "success.svg"
    draw(REPORT, path)
    words = re.findall(r"<text[^>]*>([^<]*)</text>|<tspan[^>]*>([^<]*)</tspan>", path.read_text())
    said = ["".join(each) for each in words]
    assert (said.count("0.10"), said.count("0.40")) == (4, 4), said
    assert {"cycle 1", "PROMOTE", "cycle 3", "INCONCLUSIVE", "100 unseen tasks:"} <= set(said)


def test_a_demo_that_promoted_nothing_has_no_unseen_tasks(tmp_path: Path) -> None:
    path = tmp_path / "success.svg"
    draw(REPORT.model_copy(update={"unseen": None}), path)
    assert "unseen" not in path.read_text()
