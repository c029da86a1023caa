"""Dashboards: the files are those of the code, and each query can be asked and names metrics that there are."""

import json
from pathlib import Path

import pytest
import yaml

from ops.dashboards import BOARDS, FOLDER, dashboards
from ops.metric_list import names
from ops.panels import Shown
from tests.ops.promtool import OPS, needs_promtool, promtool
from tests.ops.test_alerts import OWN, RECORDED, RUNBOOKS, named_recorded, named_series

PANELS = [(board, panel) for board in BOARDS for panel in board.panels]
QUERIES = [query for _, panel in PANELS for query, _ in panel.queries]


def test_the_files_are_what_the_code_says() -> None:
    written = {path.name: path.read_text() for path in FOLDER.glob("*.json")}
    assert written == dashboards(), "run `python -m ops`"


def test_each_panel_has_a_place_a_number_and_a_query_of_prometheus() -> None:
    for content in dashboards().values():
        panels = json.loads(content)["panels"]
        assert len({panel["id"] for panel in panels}) == len(panels)
        places = [(place["x"], place["y"]) for place in (panel["gridPos"] for panel in panels)]
        assert len(set(places)) == len(places)
        assert all(place["x"] + place["w"] <= 24 for place in (panel["gridPos"] for panel in panels))
        shown = [panel for panel in panels if panel["type"] != "row"]
        assert all(panel["targets"] and panel["fieldConfig"]["defaults"]["unit"] for panel in shown)


@pytest.mark.parametrize("panel", [panel for _, panel in PANELS], ids=lambda panel: panel.title)
def test_each_panel_names_only_metrics_that_there_are_and_a_runbook_that_there_is(panel: Shown) -> None:
    for query, _ in panel.queries:
        assert named_series(query) | named_recorded(query)
        assert named_series(query) - names() - OWN == set()
        assert named_recorded(query) - {rule.name for rule in RECORDED} == set()
    assert not panel.runbook or (RUNBOOKS / f"{panel.runbook}.md").exists()


@needs_promtool
def test_prometheus_can_read_each_query(tmp_path: Path) -> None:
    rules = [{"record": f"query:{number}", "expr": query} for number, query in enumerate(QUERIES)]
    file = tmp_path / "queries.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "queries", "rules": rules}]}))
    status, said = promtool("check", "rules", str(file))
    assert status == 0, said


def test_grafana_finds_the_dashboards_by_its_provisioning() -> None:
    (source,) = yaml.safe_load((OPS / "grafana/provisioning/datasources/ratchet.yml").read_text())["datasources"]
    (provider,) = yaml.safe_load((OPS / "grafana/provisioning/dashboards/ratchet.yml").read_text())["providers"]
    assert source["type"] == "prometheus"
    assert provider["options"]["path"] in (OPS / "README.md").read_text()
