"""Each alert as an operator meets it: a running Ratchet is in trouble, a real Prometheus says so, the runbook helps."""

import shutil
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
import yaml

from tests.ops.drill import learning, serving, streams
from tests.ops.drill.alarms import prometheus_of
from tests.ops.drill.drill import DRILLS, Drill
from tests.ops.drill.page import Page
from tests.ops.drill.system import System
from tests.ops.promtool import OPS, PROMETHEUS

FILES = (serving, streams, learning)
RULES = yaml.safe_load((PROMETHEUS / "rules" / "alerts.yml").read_text())["groups"][0]["rules"]
PAGES = {rule["alert"]: OPS.parent / rule["annotations"]["runbook"] for rule in RULES}
# What is said of roles that do not run in every drill.
OF_ROLES = {"RatchetStoreDown": "record", "RatchetLearnerDead": "learn"}


def test_each_alert_has_a_drill() -> None:
    assert {each.alert for each in DRILLS} == PAGES.keys()


@pytest.fixture
def system(tiny_base: Path, tmp_path: Path) -> Iterator[System]:
    with closing(System(tmp_path / "system", tiny_base)) as made:
        yield made


@pytest.mark.slow
@pytest.mark.nightly
@pytest.mark.skipif(shutil.which("prometheus") is None, reason="prometheus is missing: apt-get install prometheus")
@pytest.mark.usefixtures("faulty_environments")
@pytest.mark.parametrize("drill", DRILLS, ids=lambda drill: f"{drill.alert}-{drill.name}")
def test_the_alert_fires_and_its_runbook_ends_the_trouble(drill: Drill, system: System, tmp_path: Path) -> None:
    with closing(drill.course(system, Page(PAGES[drill.alert], system))) as course:
        next(course)
        expected = {alert for alert, role in OF_ROLES.items() if role not in drill.roles}
        if system.engine.process is None:
            expected.add("RatchetNothingServes")
        past = drill.past() if drill.past else ""
        with prometheus_of(system, drill.roles, tmp_path / "prometheus", past) as prometheus:
            prometheus.until_scraped(len(drill.roles))
            assert prometheus.seen_in_rounds() <= expected
            next(course)
            prometheus.until_fires(drill.alert)
            assert next(course, "over") == "over"
            if not drill.looks_back:
                prometheus.until_resolved(drill.alert)
        with prometheus_of(system, drill.roles, tmp_path / "afterwards") as prometheus:
            prometheus.until_scraped(len(drill.roles))
            assert drill.alert not in prometheus.seen_in_rounds()
