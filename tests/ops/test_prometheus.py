"""A real Prometheus over running roles: its rules work, and each panel shows something or is empty on purpose."""

import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from ops.dashboards import BOARDS
from streams.runtime.processes import free_port
from tests.ops.conftest import Roles
from tests.ops.promtool import PROMETHEUS
from tests.waiting import eventually

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("prometheus") is None, reason="prometheus is missing: apt-get install prometheus"),
]


@pytest.fixture
async def prometheus(roles: Roles, tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    """The API of a Prometheus with the configuration of the repository, but for addresses and intervals."""
    configuration: dict[str, Any] = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text())
    configuration["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    configuration["rule_files"] = [str(PROMETHEUS / "rules" / "*.yml")]
    for job in configuration["scrape_configs"]:
        address = roles.addresses.get(job["job_name"], f"127.0.0.1:{free_port()}")
        job["static_configs"] = [{"targets": [address.removeprefix("http://").rstrip("/")]}]
    (tmp_path / "prometheus.yml").write_text(yaml.safe_dump(configuration))
    with running(tmp_path) as address:
        async with httpx.AsyncClient(base_url=f"http://{address}/api/v1") as client:
            yield client


@contextmanager
def running(folder: Path) -> Iterator[str]:
    """The address of a Prometheus with the configuration in `folder`."""
    address = f"127.0.0.1:{free_port()}"
    options = {
        "config.file": folder / "prometheus.yml",
        "storage.tsdb.path": folder / "tsdb",
        "web.listen-address": address,
    }
    with (folder / "prometheus.log").open("wb") as output:
        command = ["prometheus", *(f"--{name}={value}" for name, value in options.items())]
        process = subprocess.Popen(command, stdout=output, stderr=output)
    try:
        yield address
    finally:
        process.terminate()
        process.wait()


async def found(prometheus: httpx.AsyncClient, query: str) -> list[dict[str, Any]]:
    answer = await prometheus.get("query", params={"query": query})
    assert answer.is_success, f"{query}: {answer.text}"
    result: list[dict[str, Any]] = answer.json()["data"]["result"]
    return result


async def test_panels_show_what_running_roles_say(roles: Roles, prometheus: httpx.AsyncClient) -> None:
    async def is_ruled() -> bool:
        # The last of a chain: roles are scraped, and a rule is evaluated over a rate, which takes two scrapes.
        return bool(await found(prometheus, 'ratchet:gateway_requests:rate5m{status="200"}'))

    await eventually(is_ruled, "the rules are evaluated", within_s=60, errors=(httpx.TransportError, AssertionError))
    reached = {each["metric"]["job"] for each in await found(prometheus, "up == 1")}
    assert reached == roles.addresses.keys()
    silent = {
        panel.title
        for board in BOARDS
        for panel in board.panels
        if not [each for query, _ in panel.queries for each in await found(prometheus, query)]
    }
    on_purpose = {panel.title for board in BOARDS for panel in board.panels if panel.empty}
    assert silent <= on_purpose, silent - on_purpose
    alerts = (await prometheus.get("alerts")).json()["data"]["alerts"]
    # Others are pending: the learner does not run here, and nobody stores what the assembler makes.
    assert [alert["labels"]["alertname"] for alert in alerts if alert["state"] == "firing"] == []
