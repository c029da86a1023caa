"""Loads what is served: an adapter is merged into its base, and linear layers are laid out for the processor.

The engine calls `load_weights` at its start for the base, and in a worker thread for every adapter.
"""

import ctypes
import gc
from pathlib import Path

import torch
from peft import PeftConfig, PeftModel, get_peft_model_state_dict
from safetensors import safe_open
from torch import nn
from transformers import AutoModelForCausalLM, PreTrainedModel

from daemon.inference import attention
from ratchet_client.errors import ConfigurationError


def load_weights(folder: Path, adapter: Path | None, dtype: torch.dtype) -> PreTrainedModel:
    """The model in `folder`, with `adapter` merged into it in float32, then cast to `dtype` and made ready to serve.

    Raises:
        ConfigurationError: a folder does not hold what it should, or the adapter belongs to another base model.
    """
    try:
        model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
            folder, dtype=torch.float32 if adapter else dtype, attn_implementation=attention.NAME, local_files_only=True
        )
    # Libraries raise many kinds of errors for files that are damaged and for architectures without such attention.
    except Exception as error:
        raise ConfigurationError(f"{folder} holds no model that can be served: {error}") from error
    if adapter is not None:
        model = _merged(model, adapter)
        nn.Module.to(model, dtype)
    model.eval().requires_grad_(False)
    if _can_be_laid_out(dtype):
        _lay_out(model)
    return model


def return_memory() -> None:
    """Give freed weights back to the system: glibc else keeps hundreds of MB for each adapter that came and went."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def _merged(model: PreTrainedModel, adapter: Path) -> PreTrainedModel:
    if not (adapter / "adapter_config.json").is_file():
        raise ConfigurationError(f"{adapter} holds no adapter_config.json: name the folder of a PEFT adapter")
    try:
        kind = PeftConfig.from_pretrained(str(adapter)).peft_type
        if kind != "LORA":
            raise ConfigurationError(f"the adapter in {adapter} is of type {kind}, and only LORA can be served")
        peft = PeftModel.from_pretrained(model, str(adapter))
        with safe_open(adapter / "adapter_model.safetensors", framework="pt") as weights:
            unmatched = set(weights.keys()) ^ set(get_peft_model_state_dict(peft))
        if unmatched:
            raise ValueError(f"{len(unmatched)} weights are missing or left over, such as {min(unmatched)}")
        merged: PreTrainedModel = peft.merge_and_unload()
    except ConfigurationError:
        raise
    # As above, and those of PEFT and safetensors.
    except Exception as error:
        raise ConfigurationError(f"the adapter in {adapter} does not fit the base model: {error}") from error
    return merged


def _can_be_laid_out(dtype: torch.dtype) -> bool:
    """Return whether oneDNN computes in this type here: in bfloat16 not on processors without AVX512."""
    if not torch.backends.mkldnn.is_available():
        return False
    return dtype is not torch.bfloat16 or bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


class _LaidOutLinear(nn.Module):
    """A linear layer whose weight has oneDNN's own blocked layout.

    A plain layer is brought into that layout again at every call, which at the sizes of a decoding step takes as long
    as the product itself.
    """

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.weight = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach().contiguous(), None)
        self.bias = linear.bias

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = torch.ops.mkldnn._linear_pointwise(inputs, self.weight, self.bias, "none", [], "")
        return result


def _lay_out(module: nn.Module) -> None:
    for name, child in module.named_children():
        if isinstance(child, nn.Linear):
            setattr(module, name, _LaidOutLinear(child))
        else:
            _lay_out(child)
