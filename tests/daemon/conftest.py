"""A real inference server of the tiny base, real adapters for it, and the serve role in front of both."""

import asyncio
import json
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer

from daemon.lifecycle import State
from daemon.registry import Registry
from daemon.serve import ServingSettings, serve
from streams.ids import content_id, uuid7
from streams.policy import PolicyClient
from streams.processes import free_port
from streams.settings import KafkaSettings

PROBES = ("You are playing a text game.", "You are in the kitchen. You see a fridge that is closed.")


@dataclass
class InferenceServer:
    """A process that a test may kill and start again on the same port."""

    base: Path
    port: int
    log: Path
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        command = [sys.executable, "-m", "daemon.inference", "--model", str(self.base), "--port", str(self.port)]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*command, "--threads", "1", "--dtype", "float32"], stdout=log, stderr=log, stdin=subprocess.DEVNULL
            )
        deadline = time.monotonic() + 90
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                if httpx.get(f"{self.url}/v1/models").is_success:
                    return
            except httpx.TransportError:
                time.sleep(0.1)
        pytest.fail(f"the inference server did not start: {self.log.read_text()[-2000:]}")

    def kill(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()


@pytest.fixture(scope="session")
def inference(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[InferenceServer]:
    server = InferenceServer(tiny_base, free_port(), tmp_path_factory.mktemp("inference") / "log")
    server.start()
    yield server
    server.kill()


@pytest.fixture
async def policy(inference: InferenceServer) -> AsyncIterator[PolicyClient]:
    async with PolicyClient(inference.url) as client:
        yield client


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(tmp_path / "home")


@pytest.fixture
def make_adapter(tiny_base: Path, registry: Registry) -> Callable[..., str]:
    """Makes a LoRA adapter with random weights of size `scale`, has it approved, and returns its digest.

    `trained_scale` is what the trainer recorded its probes with; other than `scale`, the adapter is not what it says.
    """

    def make(seed: int, scale: float = 0.3, trained_scale: float | None = None, approved: bool = True) -> str:
        folder = registry.home / "adapters" / f"new-{seed}-{scale}"
        _save_adapter(tiny_base, seed, scale, folder)
        probes = _merged_logprobs(tiny_base, seed, scale if trained_scale is None else trained_scale)
        (folder / "probes.json").write_text(json.dumps({"prompts": PROBES, "logprobs": probes}))
        # The server outlives a test's registry, and refuses a name that another test has used.
        digest = content_id(uuid7())
        folder.rename(folder.parent / digest)
        if approved:
            for state in (State.TRAINED, State.EVALUATING, State.APPROVED):
                registry.enter(digest, state, "learner", "a test")
        return digest

    return make


@pytest.fixture
async def serving(inference: InferenceServer, registry: Registry) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a running serve role that has no store."""
    port, stop = free_port(), asyncio.Event()
    settings = ServingSettings(port=port, home=registry.home, inference_url=inference.url, reconcile_s=0.2)
    role = asyncio.create_task(serve(settings, "http://127.0.0.1:9", KafkaSettings(bootstrap="127.0.0.1:9"), stop))
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
        for _ in range(600):
            if role.done() or await _serves(client):
                break
            await asyncio.sleep(0.05)
        yield client
    stop.set()
    await role


async def _serves(client: httpx.AsyncClient) -> bool:
    try:
        return (await client.get("/status")).json()["served"] is not None
    except httpx.TransportError:
        return False


def _save_adapter(base: Path, seed: int, scale: float, folder: Path | None) -> torch.nn.Module:
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    adapted = get_peft_model(model, LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", task_type="CAUSAL_LM"))
    generator = torch.Generator().manual_seed(seed)
    for name, weight in adapted.named_parameters():
        if "lora_" in name:
            weight.data = torch.randn(weight.shape, generator=generator) * scale
    if folder is not None:
        adapted.save_pretrained(str(folder))
    return adapted


def _merged_logprobs(base: Path, seed: int, scale: float) -> list[list[float]]:
    merged = _save_adapter(base, seed, scale, None).merge_and_unload()  # type: ignore[operator]  # PEFT has no types
    tokenizer = AutoTokenizer.from_pretrained(base)
    rows = []
    for prompt in PROBES:
        ids = tokenizer(prompt, return_tensors="pt", add_special_tokens=False)["input_ids"]
        with torch.inference_mode():
            scores = merged(input_ids=ids).logits[0, :-1].log_softmax(dim=-1)
        rows.append(scores.gather(1, ids[0, 1:, None])[:, 0].tolist())
    return rows
