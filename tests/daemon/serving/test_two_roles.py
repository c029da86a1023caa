"""Two serve roles: on homes of their own they share an inference server, and on one home the second is refused."""

import asyncio
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from daemon.registry.registry import Registry
from daemon.serving.alias import Alias
from daemon.serving.promotion import Promoter, PromotionSettings
from daemon.serving.replicas import Replicas
from daemon.serving.role import serve
from daemon.serving.settings import ServingSettings
from daemon.serving.sole import LOCK_FILE, sole_serve_role
from ratchet_client.errors import ConfigurationError
from streams.policy.client import PolicyClient
from tests.daemon.conftest import NO_KAFKA, serve_role
from tests.daemon.serving.test_approval import decision, status
from tests.daemon.serving.test_promotion import loaded
from tests.waiting import eventually

MakeAdapter = Callable[..., str]

HOLDS_THE_LOCK = """
import asyncio, sys
from pathlib import Path
from daemon.serving.sole import sole_serve_role

async def main():
    async with sole_serve_role(Path(sys.argv[1])):
        print("locked", flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""


@pytest.mark.slow
async def test_a_home_and_its_copy_serve_from_one_inference_server_and_unload_nothing_of_each_other(
    inference_url: str, registry: Registry, policy: PolicyClient, make_adapter: MakeAdapter, tmp_path: Path
) -> None:
    adapter, other = make_adapter(1), make_adapter(2)
    async with serve_role(registry, inference_url) as one:
        assert (await one.post("/promote", json=decision(adapter, "learner"))).is_success
        shutil.copytree(registry.home, tmp_path / "copy")
        async with serve_role(Registry(tmp_path / "copy"), inference_url) as two:
            ours, theirs = (await status(one)).served, (await status(two)).served
            assert ours is not None
            assert ours != theirs
            assert {ours, theirs} <= await loaded(policy)
            # The next name in each log has the same number and the same digest.
            for role in (one, two):
                answer = await role.post("/promote", json=decision(other, "learner"))
                assert answer.is_success, answer.text
            assert {(await status(one)).served, (await status(two)).served} <= await loaded(policy)
            assert not {ours, theirs} & await loaded(policy)
        assert (await status(one)).served in await loaded(policy)


async def test_a_role_that_loses_its_champion_leaves_those_of_another_home_alone(
    registry: Registry, policy: PolicyClient, make_adapter: MakeAdapter, tmp_path: Path
) -> None:
    adapter = make_adapter(1)
    alias = Alias("assistant")
    promoter = Promoter(registry, Replicas([policy]), alias, PromotionSettings())
    await promoter.reconcile()
    ours = (await promoter.promote(adapter, "anna", "better")).to_name
    shutil.copytree(registry.home, tmp_path / "copy")
    copied = Alias("assistant")
    theirs = Promoter(Registry(tmp_path / "copy"), Replicas([policy]), copied, PromotionSettings())
    await theirs.reconcile()
    assert copied.served is not None
    await policy.unload_adapter(copied.served)
    await theirs.reconcile()
    assert {ours, copied.served} <= await loaded(policy)
    await promoter.roll_back("base", "anna", "the test is over")


async def test_a_second_role_on_one_home_is_refused_and_told_the_process_of_the_first(
    inference_url: str, registry: Registry
) -> None:
    async with serve_role(registry, inference_url) as first:
        settings = ServingSettings(home=registry.home, inference_url=inference_url)
        with pytest.raises(ConfigurationError, match=rf"process id {os.getpid()}: stop that one"):
            await serve(settings, "http://127.0.0.1:9", NO_KAFKA, asyncio.Event())
        assert (await status(first)).served == "base"


@pytest.fixture
def other(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process that has the lock of `tmp_path`."""
    command = [sys.executable, "-c", HOLDS_THE_LOCK, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=Path(__file__).parents[3]) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"locked\n"
        yield process
        process.kill()


async def test_the_lock_of_a_role_that_was_killed_blocks_nobody(tmp_path: Path, other: subprocess.Popen[bytes]) -> None:
    with pytest.raises(ConfigurationError, match=f"process id {other.pid}:"):
        await sole_serve_role(tmp_path).__aenter__()
    os.kill(other.pid, signal.SIGKILL)
    await eventually(lambda: other.poll() is not None, "the role is gone")
    async with sole_serve_role(tmp_path):
        assert (tmp_path / LOCK_FILE).read_text() == f"{os.getpid()}\n"
