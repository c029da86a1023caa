"""Alerts: Prometheus takes them, each fires and does not, has a runbook, and names only metrics that there are."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import pytest
import yaml
from typer.core import TyperCommand, TyperGroup

from daemon.cli import COMMANDS
from ops.metric_list import names
from tests.ops.promtool import OPS, PROMETHEUS, needs_promtool, promtool

RUNBOOKS = OPS.parent / "docs" / "runbooks"
# What Prometheus itself writes.
OWN = {"up"}
_SERIES = re.compile(r"\b(?:ratchet|process|python)_[a-z0-9_]+\b|\bup\b")
_RECORDED = re.compile(r"\bratchet:[a-z0-9_:]+")


@dataclass(frozen=True)
class Rule:
    name: str
    expression: str
    fields: dict[str, Any]


def rules(file: str, kind: str) -> list[Rule]:
    groups = yaml.safe_load((PROMETHEUS / "rules" / file).read_text())["groups"]
    return [Rule(rule[kind], rule["expr"], rule) for group in groups for rule in group["rules"]]


ALERTS, RECORDED = rules("alerts.yml", "alert"), rules("recording.yml", "record")
TESTS = sorted((PROMETHEUS / "tests").glob("*.yml"))


@needs_promtool
def test_prometheus_takes_the_configuration_and_its_rules() -> None:
    for what in (("config", str(PROMETHEUS / "prometheus.yml")), *(("rules", str(file)) for file in rule_files())):
        status, said = promtool("check", *what)
        assert status == 0, said


@needs_promtool
@pytest.mark.parametrize("file", TESTS, ids=lambda file: file.stem)
def test_alerts_fire_where_they_should_and_not_else(file: Path) -> None:
    status, said = promtool("test", "rules", str(file))
    assert status == 0, said


def test_each_alert_is_tested_both_ways() -> None:
    cases = [case for file in TESTS for case in yaml.safe_load(file.read_text())["tests"]]
    expected = {(test["alertname"], bool(test["exp_alerts"])) for case in cases for test in case["alert_rule_test"]}
    assert expected == {(alert.name, fires) for alert in ALERTS for fires in (True, False)}


def test_each_alert_has_a_severity_and_a_runbook_and_each_runbook_an_alert() -> None:
    assert {alert.fields["labels"]["severity"] for alert in ALERTS} == {"critical", "warning"}
    books = [alert.fields["annotations"]["runbook"] for alert in ALERTS]
    assert sorted(books) == sorted(f"docs/runbooks/{path.name}" for path in RUNBOOKS.glob("*.md"))


@pytest.mark.parametrize("rule", [*ALERTS, *RECORDED], ids=lambda rule: rule.name)
def test_each_rule_names_only_metrics_and_rules_that_there_are(rule: Rule) -> None:
    series, recorded = named_series(rule.expression), named_recorded(rule.expression)
    assert series | recorded
    assert series - names() - OWN == set()
    assert recorded - {each.name for each in RECORDED} == set()


@pytest.mark.parametrize("book", sorted(RUNBOOKS.glob("*.md")), ids=lambda book: book.stem)
def test_each_runbook_says_what_to_look_at_and_to_do_with_commands_that_there_are(book: Path) -> None:
    text = book.read_text()
    assert all(f"**{part}.**" in text for part in ("What it means", "Look", "Do"))
    for line in re.findall(r"`(ratchet [^`]*)`", text):
        assert unknown_words(line) == "", line
    for target in re.findall(r"\]\(([^)#]+)", text):
        assert (book.parent / target).exists(), target
    for name in re.findall(r"`(ratchet_[a-z_]+)", text):
        assert name in names() or f"{name}_count" in names(), name


def unknown_words(line: str) -> str:
    """The first word of a command line that is neither a command nor an option; empty where all are."""
    name, *words = re.sub(r'"[^"]*"', "VALUE", line).split()[1:]
    if name not in COMMANDS:
        return name
    command = COMMANDS[name].load(name)
    while isinstance(command, TyperGroup) and words:
        if words[0] not in command.commands:
            return words[0]
        command, words = cast(TyperCommand | TyperGroup, command.commands[words[0]]), words[1:]
    options = {option for parameter in command.params for option in parameter.opts}
    return next((word for word in words if word.startswith("--") and word not in options), "")


def named_series(expression: str) -> set[str]:
    """The names of metrics in PromQL, all of which begin in one of few ways."""
    return set(_SERIES.findall(_RECORDED.sub("", expression)))


def named_recorded(expression: str) -> set[str]:
    """The names of recording rules in PromQL."""
    return set(_RECORDED.findall(expression))


def rule_files() -> list[Path]:
    return sorted((PROMETHEUS / "rules").glob("*.yml"))
