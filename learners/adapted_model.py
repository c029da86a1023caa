"""The base model with the adapter that is trained: a fresh one, or one that is trained on."""

from pathlib import Path
from typing import cast

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM, PreTrainedModel

from learners import tree_attention
from learners.architecture import check_trees, linear_layers
from learners.settings import LoraSettings
from streams.errors import ConfigurationError


def adapted_model(base: Path, lora: LoraSettings, parent: Path | None, dtype: torch.dtype) -> PeftModel:
    """The base model with a fresh adapter of all its linear layers, or with `parent` to be trained on.

    Adapter weights are float32. Raises `ConfigurationError` when the architecture cannot be trained exactly.
    """
    try:
        model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
            base, dtype=dtype, attn_implementation=tree_attention.NAME, local_files_only=True
        )
    # Libraries raise many kinds of errors for files that are damaged and for architectures without such attention.
    except Exception as error:
        raise ConfigurationError(f"{base} holds no model that can be trained: {error}") from error
    check_trees(model)
    if parent is not None:
        try:
            return PeftModel.from_pretrained(model, str(parent), is_trainable=True)
        # As above: PEFT and safetensors have many kinds of errors for damaged files.
        except Exception as error:
            raise ConfigurationError(f"{parent} holds no adapter of {base}: {error}") from error
    depth = model.config.get_text_config().num_hidden_layers
    layers = None if lora.layers is None else list(range(max(0, depth - lora.layers), depth))
    config = LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        target_modules=linear_layers(model),
        layers_to_transform=layers,
        task_type="CAUSAL_LM",
    )
    try:
        return cast(PeftModel, get_peft_model(model, config))
    except (ValueError, TypeError) as error:
        raise ConfigurationError(f"PEFT cannot adapt {type(model).__name__}: {error}") from error
