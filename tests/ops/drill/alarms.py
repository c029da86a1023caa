"""A real Prometheus over a system under drill: the repository's scrape jobs and rules, with shorter waits."""

import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import yaml

from streams.runtime.processes import free_port
from tests.ops.drill.system import System
from tests.ops.promtool import PROMETHEUS, promtool
from tests.waiting import until

FASTER = 300
"""Alerts wait for a 300th of what they do in production, and for a second at least. Their queries are the same."""

_UNITS = {"s": 1, "m": 60, "h": 3600}
_ROUNDS = 8
_ENOUGH_S = 180.0


@dataclass(frozen=True)
class Prometheus:
    """A running Prometheus at `address`."""

    address: str

    def firing(self) -> set[str]:
        """The names of the alerts that fire now."""
        alerts = self._get("alerts")["alerts"]
        return {alert["labels"]["alertname"] for alert in alerts if alert["state"] == "firing"}

    def until_fires(self, alert: str, within_s: float = _ENOUGH_S) -> None:
        until(
            lambda: alert in self.firing(),
            lambda: f"{alert} fires; there are {self.firing()}",
            within_s=within_s,
        )

    def until_resolved(self, alert: str, within_s: float = _ENOUGH_S) -> None:
        until(lambda: alert not in self.firing(), f"{alert} is resolved", within_s=within_s)

    def until_scraped(self, jobs: int) -> None:
        """Wait until each of so many jobs answers, and rules were evaluated over what they said twice."""
        until(
            lambda: len(self.query("count_over_time((up == 1)[1m:1s]) >= 3")) >= jobs,
            lambda: f"{jobs} jobs are scraped: {self.query('up')}",
        )

    def seen_in_rounds(self, rounds: int = _ROUNDS) -> set[str]:
        """The alerts that fire at any time while all rules are evaluated so many times."""
        first, seen = self._rounds(), set[str]()

        def is_over() -> bool:
            seen.update(self.firing())
            return self._rounds() >= first + rounds

        until(is_over, f"the rules are evaluated {rounds} times")
        return seen

    def query(self, query: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self._get("query", query=query)["result"]
        return found

    def _rounds(self) -> float:
        counts = self.query("min(prometheus_rule_group_iterations_total)")
        return float(counts[0]["value"][1]) if counts else 0.0

    def _get(self, path: str, **parameters: str) -> dict[str, Any]:
        answer = httpx.get(f"http://{self.address}/api/v1/{path}", params=parameters, timeout=10)
        assert answer.is_success, answer.text
        data: dict[str, Any] = answer.json()["data"]
        return data


@contextmanager
def prometheus_of(system: System, roles: tuple[str, ...], folder: Path, past: str = "") -> Iterator[Prometheus]:
    """A Prometheus that has just begun to watch these roles. `past` is what it knows of before, in OpenMetrics."""
    folder.mkdir()
    (folder / "rules").mkdir()
    for file in (PROMETHEUS / "rules").glob("*.yml"):
        (folder / "rules" / file.name).write_text(hastened(file.read_text()))
    address = f"127.0.0.1:{free_port()}"
    configuration: dict[str, Any] = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text())
    configuration["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    configuration["rule_files"] = [str(folder / "rules" / "*.yml")]
    jobs = {f"ratchet-{role}": system.url(role).removeprefix("http://") for role in roles}
    watched = [job for job in configuration["scrape_configs"] if job["job_name"] in jobs]
    for job in watched:
        job["static_configs"] = [{"targets": [jobs[job["job_name"]]]}]
        if system.token:
            job["authorization"] = {"credentials": system.token}
    itself = {"job_name": "prometheus", "static_configs": [{"targets": [address]}]}
    configuration["scrape_configs"] = [*watched, itself]
    (folder / "prometheus.yml").write_text(yaml.safe_dump(configuration))
    if past:
        (folder / "past").write_text(past)
        status, said = promtool("tsdb", "create-blocks-from", "openmetrics", str(folder / "past"), str(folder / "tsdb"))
        assert status == 0, said
    with _running(folder, address) as prometheus:
        yield prometheus


def hastened(rules: str) -> str:
    """The rules with every `for` a 300th of itself."""

    def shorter(found: re.Match[str]) -> str:
        return f"for: {max(1, int(found[1]) * _UNITS[found[2]] // FASTER)}s"

    return re.sub(r"\bfor: (\d+)([smh])\b", shorter, rules)


@contextmanager
def _running(folder: Path, address: str) -> Iterator[Prometheus]:
    program = shutil.which("prometheus")
    assert program is not None, "prometheus is missing: apt-get install prometheus"
    options = {
        "config.file": folder / "prometheus.yml",
        "storage.tsdb.path": folder / "tsdb",
        "web.listen-address": address,
    }
    with (folder / "prometheus.log").open("wb") as output:
        command = [program, *(f"--{name}={value}" for name, value in options.items())]
        process = subprocess.Popen(command, stdout=output, stderr=output)
    try:
        until(
            lambda: httpx.get(f"http://{address}/-/ready").is_success,
            lambda: (folder / "prometheus.log").read_text()[-2000:],
            errors=(httpx.TransportError,),
        )
        yield Prometheus(address)
    finally:
        process.terminate()
        process.wait()
