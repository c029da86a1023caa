"""Adapters of random weights, as a trainer would leave them: with the probes that attestation asks for."""

import json
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer

from daemon.registry.lifecycle import State
from daemon.registry.registry import Registry
from learners.adapters import AdapterStore
from learners.snapshots import Snapshot
from ratchet_client.ids import uuid7
from tests.builders.trained import manifest_without_data

PROBES = ("You are playing a text game.", "You are in the kitchen. You see a fridge that is closed.")


def add_random_adapter(
    base: Path,
    seed: int,
    scale: float = 0.3,
    trained_scale: float | None = None,
    approved: bool = True,
    last: State = State.APPROVED,
    snapshot: Snapshot | None = None,
    *,
    within: Registry,
) -> str:
    """Make a LoRA adapter of `base` with random weights of size `scale`, have it approved, and return its digest.

    `trained_scale` is what the trainer recorded its probes with; other than `scale`, the adapter is not what it says.
    Its last state may be another than approved. It was trained on `snapshot`, or on no data.
    `within` is the registry that has it.
    """
    probes = _merged_logprobs(base, seed, scale if trained_scale is None else trained_scale)
    # The server outlives a test's registry, and refuses a name that another test has used.
    manifest = manifest_without_data(note=uuid7())
    if snapshot is not None:
        manifest = manifest.model_copy(update={"snapshot": snapshot.manifest})
    with TemporaryDirectory() as made:
        folder = Path(made)
        _save(base, seed, scale, folder)
        (folder / "probes.json").write_text(json.dumps({"prompts": PROBES, "logprobs": probes}))
        digest = AdapterStore(within.home / "adapters").add(folder, manifest)
    if approved:
        for state in (State.TRAINED, State.EVALUATING, last):
            within.enter(digest, state, "learner", "a test")
    return digest


def _save(base: Path, seed: int, scale: float, folder: Path | None) -> torch.nn.Module:
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
    merged = _save(base, seed, scale, None).merge_and_unload()  # type: ignore[operator]  # PEFT has no types
    tokenizer = AutoTokenizer.from_pretrained(base)
    rows = []
    for prompt in PROBES:
        ids = tokenizer(prompt, return_tensors="pt", add_special_tokens=False)["input_ids"]
        with torch.inference_mode():
            scores = merged(input_ids=ids).logits[0, :-1].log_softmax(dim=-1)
        rows.append(scores.gather(1, ids[0, 1:, None])[:, 0].tolist())
    return rows
