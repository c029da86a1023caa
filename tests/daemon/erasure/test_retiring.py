"""`ratchet forget --erase --retire-champion` while agents are served: over real roles, an engine and a training."""

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from daemon.config import Settings
from daemon.learning.cycle import new_snapshot, train_candidate
from daemon.learning.loop import Loop
from daemon.registry.audit import Action
from daemon.registry.lifecycle import State
from daemon.registry.registry import Registry
from daemon.registry.schemas import BASE
from daemon.registry.verifying import verify
from daemon.serving.control_client import ControlClient
from learners.adapters import AdapterStore
from learners.settings import LearnerSettings, LoraSettings, Stage
from learners.snapshots import Snapshot, build_snapshot, read_episodes, read_principals
from streams.kafka.settings import KafkaSettings
from streams.policy.client import PolicyClient
from streams.runtime.processes import die_with_parent, free_port
from streams.sandboxes.pool import SandboxPool
from streams.store.client import StoreClient
from streams.trust.holdout import Split
from tests.builders.episodes import HOLDOUT, TASKS, episode
from tests.daemon.serving.test_approval import decision
from tests.integration.recording import answers, caught_up, pairs, publisher
from tests.kept_up import RATCHET, ROOT, kept_up
from tests.waiting import eventually, until

MakeAdapter = Callable[..., str]

CHAT = {"model": "assistant", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 1}
LEARNER = LearnerSettings(
    stages=(Stage(objective="world_model", updates=1), Stage(objective="imitation", updates=1)),
    lora=LoraSettings(rank=4, alpha=8),
    threads=1,
)


@contextmanager
def serve_process(environment: dict[str, str], log: Path, url: str) -> Iterator[httpx.Client]:
    """The serve role as a process; a client of it once it serves."""
    parent = os.getpid()
    with log.open("wb") as output:
        role = subprocess.Popen(
            [*RATCHET, "run", "--roles", "serve"],
            cwd=ROOT,
            env=environment,
            stdout=output,
            stderr=output,
            preexec_fn=lambda: die_with_parent(parent),
        )
    try:
        with httpx.Client(base_url=url, timeout=60) as http:
            until(
                lambda: role.poll() is not None or http.get("/status").json()["served"] is not None,
                lambda: f"the serve role serves: {log.read_text()[-2000:]}",
                within_s=90,
                errors=(httpx.TransportError,),
            )
            yield http
    finally:
        role.kill()
        role.wait()


def holding(home: Path, content: bytes) -> list[str]:
    return [path.name for path in home.rglob("*") if path.is_file() and content in path.read_bytes()]


@pytest.mark.nightly
@pytest.mark.parametrize("has_served_before", [True, pytest.param(False, marks=pytest.mark.nightly)])
async def test_what_did_not_see_the_principal_serves_and_is_trained_on_when_the_command_ends(
    has_served_before: bool,
    kafka: KafkaSettings,
    inference_url: str,
    registry: Registry,
    make_adapter: MakeAdapter,
    tiny_base: Path,
    tmp_path: Path,
) -> None:
    home, store_port, serve_port = registry.home, free_port(), free_port()
    environment = {
        **os.environ,
        "RATCHET_HOME": str(home),
        "RATCHET_KAFKA": kafka.model_dump_json(),
        "RATCHET_STORE__PORT": str(store_port),
        "RATCHET_SERVING__PORT": str(serve_port),
        "RATCHET_ENGINE__URL": inference_url,
        "RATCHET_HOLDOUT": HOLDOUT.model_dump_json(),
    }
    store_url, serve_url = f"http://127.0.0.1:{store_port}", f"http://127.0.0.1:{serve_port}"
    with kept_up(environment, tmp_path / "record.log"), publisher(kafka) as publish:
        async with StoreClient(store_url) as store:
            await eventually(lambda: answers(store), within_s=60)

            async def played(name: str) -> Snapshot:
                task = TASKS[Split.TRAIN][len(name) % 5]
                publish(kafka.events_topic, pairs(episode(name, task, action=f"say {name}")))
                await eventually(lambda: caught_up(store, kafka, kafka.events_topic))
                return await build_snapshot(store, HOLDOUT, home / "snapshots")

            clean = make_adapter(1, snapshot=await played("stays")) if has_served_before else BASE
            saw = make_adapter(2, snapshot=await played("leaves"))
            later = make_adapter(3, snapshot=await played("another-one"))
            weights = {
                adapter: (home / "adapters" / adapter / "adapter_model.safetensors").read_bytes()
                for adapter in (saw, later)
            }
            with serve_process(environment, tmp_path / "serve.log", serve_url) as http:
                for adapter in (clean, saw):
                    assert adapter == BASE or http.post("/promote", json=decision(adapter, "learner")).is_success
                served = http.post("/v1/chat/completions", json=CHAT).headers["x-ratchet-adapter"]
                command = [*RATCHET, "forget", "--principal", "leaves", "--erase", "--json"]
                refused = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)  # noqa: ASYNC221
                assert (refused.returncode, "--retire-champion" in refused.stderr) == (1, True), refused.stderr
                assert (registry.refs().champion, registry.state(saw)) == (saw, State.SERVING)

                done = subprocess.run(  # noqa: ASYNC221
                    [*command, "--retire-champion"], cwd=ROOT, env=environment, capture_output=True, text=True
                )
                assert done.returncode == 0, done.stderr
                answer = http.post("/v1/chat/completions", json=CHAT)
                assert answer.is_success, answer.text
                now = answer.headers["x-ratchet-adapter"]
                status = http.get("/status").json()
            assert now != served
            assert (status["champion"], status["served"]) == (clean, now)
            async with PolicyClient(inference_url) as engine:
                models = {model.name for model in await engine.models()}
            assert served not in models
            for adapter, content in weights.items():
                assert holding(home, content) == []
                assert not (home / "adapters" / adapter).exists()
                assert registry.state(adapter) is State.QUARANTINED
            report = json.loads(done.stdout)["erasure"]
            assert set(report["erasure"]["adapters"]) == {saw, later}
            assert report["in_use"] == []
            told = [(entry.action, entry.subject) for entry in registry.audit.read()]
            back = told.index((Action.ROLLED_BACK, clean))
            erased = told.index((Action.ERASED, report["erasure"]["erasure_id"]))
            assert back < told.index((Action.MOVED, saw), back + 1) < erased
            assert "leaves" not in registry.audit.path.read_text()
            assert verify(home).findings == ()

            settings = Settings(home=home, learner=LEARNER, holdout=HOLDOUT).settled()
            async with PolicyClient(inference_url) as policy, ControlClient(serve_url) as control:
                loop = Loop(
                    settings=settings,
                    base=tiny_base,
                    registry=registry,
                    adapters=AdapterStore(home / "adapters"),
                    store=store,
                    policy=policy,
                    control=control,
                    pool=SandboxPool("textworld_express"),
                    tasks=(),
                    held_out=(),
                    out_of_domain=(),
                )
                snapshot = await new_snapshot(loop, LEARNER)
                candidate = await train_candidate(loop, LEARNER, snapshot, lambda *told: None)
    manifest = AdapterStore(home / "adapters").manifest(candidate)
    assert manifest.parent == (clean if has_served_before else None)
    assert (manifest.snapshot, "another-one" in read_episodes(snapshot.folder)) == (snapshot.manifest, True)
    assert "leaves" not in {*read_episodes(snapshot.folder), *read_principals(snapshot.folder)}
    assert candidate not in {exposure.adapter for exposure in loop.provenance().exposed("leaves")}
