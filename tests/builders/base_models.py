"""Base models of many architectures and chat templates: random weights, the embedded model's words."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, LlamaConfig

from learners.base_model import embedded_tokenizer_files

TEMPLATES = Path(__file__).parents[1] / "chat_templates"


@dataclass(frozen=True, slots=True)
class Family:
    """The special tokens of a chat template; `stops` are those that the generation settings end a reply at.

    `setting` is set before the template's own text, which is in the file `file` where it is not named as the family is.
    """

    special: tuple[str, ...]
    stops: tuple[str, ...]
    bos: str | None = None
    eos: str = "<|im_end|>"
    words: tuple[str, ...] = ()
    setting: str = ""
    file: str | None = None


_CHATML = Family(("<|im_start|>", "<|im_end|>"), ("<|im_end|>",))
_GEMMA = Family(("<start_of_turn>", "<end_of_turn>"), ("<eos>", "<end_of_turn>"), "<bos>", "<eos>")
_DEEPSEEK = Family(
    tuple(f"<\uff5c{role}\uff5c>" for role in ("User", "Assistant")),
    ("<\uff5cend\u2581of\u2581sentence\uff5c>",),
    "<\uff5cbegin\u2581of\u2581sentence\uff5c>",
    "<\uff5cend\u2581of\u2581sentence\uff5c>",
    ("<think>", "</think>"),
)
FAMILIES = {
    "smollm2": _CHATML,
    "llama3_2": Family(
        ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
        ("<|end_of_text|>", "<|eot_id|>"),
        "<|begin_of_text|>",
        "<|eot_id|>",
    ),
    "qwen2_5": _CHATML,
    "qwen3": Family(_CHATML.special, _CHATML.stops, words=("<think>", "</think>")),
    "qwen3_no_thinking": Family(
        _CHATML.special,
        _CHATML.stops,
        words=("<think>", "</think>"),
        setting="{%- set enable_thinking = false %}",
        file="qwen3",
    ),
    "gemma": _GEMMA,
    "gemma3": _GEMMA,
    "phi3": Family(
        ("<|system|>", "<|user|>", "<|assistant|>", "<|end|>"), ("<|endoftext|>", "<|end|>"), None, "<|endoftext|>"
    ),
    "deepseek_r1_distill": _DEEPSEEK,
    "gptoss": Family(
        ("<|start|>", "<|message|>", "<|end|>", "<|channel|>", "<|call|>", "<|return|>"),
        ("<|return|>", "<|call|>"),
        None,
        "<|return|>",
    ),
    "glm4moe": Family(
        ("[gMASK]", "<sop>", "<|system|>", "<|user|>", "<|assistant|>", "<|observation|>"),
        ("<|endoftext|>", "<|user|>", "<|observation|>"),
        None,
        "<|endoftext|>",
    ),
    "lfm2": Family(_CHATML.special, _CHATML.stops, "<|startoftext|>"),
    "cohere2": Family(
        (
            "<|START_OF_TURN_TOKEN|>",
            "<|END_OF_TURN_TOKEN|>",
            "<|USER_TOKEN|>",
            "<|CHATBOT_TOKEN|>",
            "<|SYSTEM_TOKEN|>",
            "<|START_RESPONSE|>",
            "<|END_RESPONSE|>",
        ),
        ("<|END_OF_TURN_TOKEN|>",),
        "<BOS_TOKEN>",
        "<|END_OF_TURN_TOKEN|>",
    ),
}
# Fields that make a model tiny, then those of the kinds that differ.
_TINY = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 2048,
    "initializer_range": 0.2,
}
ARCHITECTURES: dict[str, dict[str, Any]] = {
    "llama": {},
    "qwen2": {},
    "qwen3": {},
    "granite": {"logits_scaling": 8.0, "residual_multiplier": 0.5, "attention_multiplier": 0.3},
    "phi3": {"sliding_window": 24},
    "gemma3_text": {"sliding_window": 16, "layer_types": ["sliding_attention", "full_attention"]},
    "mistral": {"sliding_window": 20},
    "cohere2": {"logit_scale": 0.25, "sliding_window": 16, "layer_types": ["sliding_attention", "full_attention"]},
    "olmo2": {},
    "smollm3": {"no_rope_layers": [1, 0]},
    "starcoder2": {"sliding_window": None},
    "gemma2": {"layer_types": ["full_attention", "full_attention"]},
    "gpt_oss": {"num_local_experts": 2, "num_experts_per_tok": 1},
    "lfm2": {"layer_types": ["conv", "full_attention"]},
    "bloom": {"n_layer": 2, "n_head": 4},
}


def write_base(words: Path, folder: Path, template: str = "smollm2", architecture: str = "llama") -> Path:
    """Write a tiny random model of that architecture, with that chat template, into `folder`.

    Its tokenizer is the one of the base model `words`, with the special tokens of the template added.
    """
    write_tokenizer(words, folder, template)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    config = AutoConfig.for_model(
        architecture,
        **_TINY | ARCHITECTURES[architecture],
        vocab_size=len(tokenizer),
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.eos_token_id,
    )
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    _write_stops(folder, template)
    return folder


def write_tiny_llama(folder: Path, hidden: int = 64, heads: int = 4, key_heads: int = 2) -> Path:
    """Write a randomly initialised Llama of two layers, with the embedded model's own tokenizer, into `folder`."""
    embedded_tokenizer_files(folder)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(AutoTokenizer.from_pretrained(folder)),
        hidden_size=hidden,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=heads,
        num_key_value_heads=key_heads,
        max_position_embeddings=2048,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=2,
        tie_word_embeddings=True,
    )
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    return folder


def write_chat(words: Path, folder: Path, template: str) -> Path:
    """Write what `ChatTokenizer` reads of such a model: all but its weights."""
    write_tokenizer(words, folder, template)
    (folder / "config.json").write_text('{"model_type": "llama"}')
    _write_stops(folder, template)
    return folder


def _write_stops(folder: Path, template: str) -> None:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    stops = [tokenizer.convert_tokens_to_ids(stop) for stop in FAMILIES[template].stops]
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": stops}))


def write_tokenizer(words: Path, folder: Path, template: str) -> None:
    """Write the tokenizer of `words` with the special tokens and the text of a chat template into `folder`."""
    tokenizer = AutoTokenizer.from_pretrained(words)
    if template == "smollm2":
        tokenizer.save_pretrained(folder)
        return
    family = FAMILIES[template]
    # As Phi-3 has its own: what follows them loses its spaces.
    rstrip = template == "phi3"
    special = {*family.special, *family.stops, family.eos, *([family.bos] if family.bos else [])}
    tokens = [AddedToken(text, special=True, rstrip=rstrip, normalized=False) for text in sorted(special)]
    tokenizer.add_special_tokens({"additional_special_tokens": tokens})
    tokenizer.add_tokens([AddedToken(text, special=False, normalized=False) for text in family.words])
    tokenizer.eos_token = family.eos
    if family.bos:
        tokenizer.bos_token = family.bos
    tokenizer.chat_template = family.setting + (TEMPLATES / f"{family.file or template}.jinja").read_text()
    tokenizer.save_pretrained(folder)


def edit_json(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change a JSON document in place."""
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))
