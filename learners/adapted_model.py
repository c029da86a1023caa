"""The base model with the adapter that is trained: a fresh one, or one that is trained on."""

import importlib.util
from pathlib import Path
from typing import cast

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import nn
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, PreTrainedModel

from learners import tree_attention
from learners.architecture import check_trees, linear_layers
from learners.lora_linear import LoraLinear
from learners.settings import LoraSettings, Quantisation
from ratchet_client.errors import ConfigurationError

_CPU = torch.device("cpu")


def adapted_model(
    base: Path,
    lora: LoraSettings,
    parent: Path | None,
    dtype: torch.dtype,
    quantisation: Quantisation | None = None,
    device: torch.device = _CPU,
) -> PeftModel:
    """The base model with a fresh adapter of all its linear layers, or with `parent` to be trained on.

    Adapter weights are float32. With `quantisation` the base's linear layers but its output layer are kept in 4 bit and
    multiplied in `dtype`. Raises `ConfigurationError` when the architecture cannot be trained exactly, or what
    quantises is missing.
    """
    quantised = None if quantisation is None else _quantised(quantisation, dtype)
    try:
        model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
            base,
            dtype=dtype,
            attn_implementation=tree_attention.NAME,
            local_files_only=True,
            quantization_config=quantised,
            device_map={"": device},
        )
    # Libraries raise many kinds of errors for files that are damaged and for architectures without such attention.
    except Exception as error:
        raise ConfigurationError(f"{base} holds no model that can be trained: {error}") from error
    if quantised is not None:
        _keep_gradients(model)
    check_trees(model)
    if parent is not None:
        try:
            config = _computed(LoraConfig.from_pretrained(str(parent)), quantisation)
            return PeftModel.from_pretrained(model, str(parent), is_trainable=True, config=config)
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
        return cast(PeftModel, get_peft_model(model, _computed(config, quantisation)))
    except (ValueError, TypeError) as error:
        raise ConfigurationError(f"PEFT cannot adapt {type(model).__name__}: {error}") from error


def _computed(config: LoraConfig, quantisation: Quantisation | None) -> LoraConfig:
    """Have linear layers computed by our own class, but for quantised ones, of which it could not read the weights."""
    if quantisation is None:
        config._register_custom_module({nn.Linear: LoraLinear})
    return config


def _quantised(quantisation: Quantisation, dtype: torch.dtype) -> BitsAndBytesConfig:
    """*QLoRA: Efficient Finetuning of Quantized LLMs* (arXiv 2305.14314), section 3: NormalFloat, quantised twice."""
    if importlib.util.find_spec("bitsandbytes") is None:
        raise ConfigurationError(
            f"learner.quantisation is {quantisation} and bitsandbytes is not installed: pip install "
            "'ratchetd[qlora]', or leave learner.quantisation out"
        )
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type=quantisation,
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
    )


def _keep_gradients(model: PreTrainedModel) -> None:
    """Let the quantised layers be in training from the start."""
    # In evaluation bitsandbytes packs them for kernels in bfloat16 on some CPUs; those pass no gradients on.
    for module in model.modules():
        if isinstance(module, nn.Linear) and module.weight.dtype == torch.uint8:
            module.train()
