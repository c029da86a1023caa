"""Real adapters of the tiny base, and the serve role in front of the inference server."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer

from daemon.registry.lifecycle import State
from daemon.registry.registry import Registry
from daemon.registry.schemas import BASE
from daemon.serving.role import serve
from daemon.serving.settings import CaptureSettings, ServingSettings
from learners.adapters import AdapterStore
from streams.ids import uuid7
from streams.kafka.settings import KafkaSettings
from streams.policy.client import PolicyClient
from streams.runtime.processes import free_port
from streams.trust.groups import AdapterSettings
from tests.builders.trained import manifest_without_data
from tests.waiting import eventually

PROBES = ("You are playing a text game.", "You are in the kitchen. You see a fridge that is closed.")

NO_KAFKA = KafkaSettings(bootstrap="127.0.0.1:9")


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(tmp_path / "home")


@pytest.fixture
def make_adapter(tiny_base: Path, registry: Registry) -> Callable[..., str]:
    """Makes a LoRA adapter with random weights of size `scale`, has it approved, and returns its digest.

    `trained_scale` is what the trainer recorded its probes with; other than `scale`, the adapter is not what it says.
    Its last state may be another than approved. `within` is the registry that has it, by default the home's own.
    """

    def make(
        seed: int,
        scale: float = 0.3,
        trained_scale: float | None = None,
        approved: bool = True,
        last: State = State.APPROVED,
        within: Registry = registry,
    ) -> str:
        folder = within.home / "training"
        _save_adapter(tiny_base, seed, scale, folder)
        probes = _merged_logprobs(tiny_base, seed, scale if trained_scale is None else trained_scale)
        (folder / "probes.json").write_text(json.dumps({"prompts": PROBES, "logprobs": probes}))
        # The server outlives a test's registry, and refuses a name that another test has used.
        digest = AdapterStore(within.home / "adapters").add(folder, manifest_without_data(note=uuid7()))
        if approved:
            for state in (State.TRAINED, State.EVALUATING, last):
                within.enter(digest, state, "learner", "a test")
        return digest

    return make


@pytest.fixture
async def emptied(policy: PolicyClient) -> None:
    """Nothing is loaded but the base model: what other tests left takes places, as that of other homes does."""
    for model in await policy.models():
        if model.name != BASE:
            await policy.unload_adapter(model.name)


@pytest.fixture
async def serving(inference_url: str, registry: Registry) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a running serve role that has no store."""
    async with serve_role(registry, inference_url) as client:
        yield client


@asynccontextmanager
async def serve_role(
    registry: Registry,
    inference_url: str,
    store_url: str = "http://127.0.0.1:9",
    kafka: KafkaSettings = NO_KAFKA,
    waits: bool = True,
    adapters: AdapterSettings = AdapterSettings(),  # noqa: B008 - frozen
    **parts: Any,
) -> AsyncIterator[httpx.AsyncClient]:
    """Runs a serve role, by default without a store; yields a client of it once it serves, or answers.

    `parts` are more of its settings.
    """
    port, stop = free_port(), asyncio.Event()
    settings = ServingSettings(
        port=port,
        home=registry.home,
        inference_url=inference_url,
        reconcile_s=0.2,
        capture=CaptureSettings(flush_s=0),
        **parts,
    )
    role = asyncio.create_task(serve(settings, store_url, kafka, stop, adapters=adapters))
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:

        async def serves() -> bool:
            status = (await client.get("/status")).json()
            return role.done() or not waits or status["served"] is not None or status["is_cold"]

        await eventually(serves, "the serve role serves", errors=(httpx.TransportError,))
        yield client
    stop.set()
    await role


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
