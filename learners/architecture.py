"""Limits of an architecture: which of its layers are adapted, and whether it can be trained in trees and scored.

The trainer and the embedded server ask at their start, so that an architecture which cannot be trained or served
exactly is refused in one sentence and not computed wrongly.
"""

from collections import Counter
from typing import Any

import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.pytorch_utils import Conv1D

from learners.output_head import OutputHead
from learners.tree_attention import Segment, TreeLayout, tree_layout
from ratchet_client.errors import ConfigurationError

# Mean difference of log-probabilities, in nats, that rounding explains. For random tokens Transformers' own two
# implementations of attention differ by 0.08 in bfloat16 and by 1e-5 in float32 (SmolLM2-135M).
TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 0.3, torch.float16: 0.05}
_PROBE_TOKENS = 12


def linear_layers(model: PreTrainedModel) -> list[str]:
    """The names, within their blocks, of the linear layers of `model` but its output layer.

    Raises `ConfigurationError` when there are none.
    """
    head = model.get_output_embeddings()
    found = {
        name.rpartition(".")[2]
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear | Conv1D) and module is not head
    }
    if not found:
        raise ConfigurationError(
            f"{type(model).__name__} has no linear layers that LoRA could adapt: choose another base model"
        )
    return sorted(found)


def adapted_layers(adapted: PeftModel) -> dict[str, int]:
    """Return how many layers of each name the adapter changes."""
    names = (name for name, module in adapted.named_modules() if isinstance(module, LoraLayer))
    # PEFT wraps the experts of a mixture once more.
    parts = (name.removesuffix(".base_layer").rpartition(".")[2] for name in names)
    return dict(sorted(Counter(parts).items()))


def attention_windows(config: PreTrainedConfig) -> tuple[int, ...]:
    """The numbers of last positions that layers attend over, where not over all.

    Raises `ConfigurationError` for layers of any other kind.
    """
    window = getattr(config, "sliding_window", None)
    kinds = set(getattr(config, "layer_types", None) or ["sliding_attention" if window else "full_attention"])
    others = sorted(kinds - {"full_attention", "sliding_attention"})
    if others:
        raise ConfigurationError(
            f"{config.model_type} has layers of the kind {', '.join(others)}, which are not implemented: "
            "choose another base model"
        )
    return (int(window),) if window and "sliding_attention" in kinds else ()


def longest_exact(config: PreTrainedConfig) -> int | None:
    """The longest sequence, in tokens, in which a token's position means the same whatever is read beside it.

    Rotary embeddings of some kinds change all positions once any of them is beyond the original length. None where the
    model knows no limit.
    """
    config = config.get_text_config()
    lengths = [getattr(config, "max_position_embeddings", None)]
    parameters = getattr(config, "rope_parameters", None) or {}
    for kind in [parameters, *(part for part in parameters.values() if isinstance(part, dict))]:
        if kind.get("rope_type") in {"longrope", "dynamic"}:
            lengths += [
                kind.get("original_max_position_embeddings"),
                getattr(config, "original_max_position_embeddings", None),
            ]
    return min((int(length) for length in lengths if length), default=None)


def check_trees(model: PreTrainedModel) -> None:
    """Raises `ConfigurationError` unless a packed tree gives the log-probabilities of its paths read one by one."""
    kind = type(model).__name__
    refused = f"{kind} cannot be trained on packed episodes"
    attention_windows(model.config.get_text_config())
    ids = probe_tokens(model).to(model.device)
    third = _PROBE_TOKENS // 3
    segments = (Segment(0, 2 * third, -1), Segment(2 * third, 3 * third, third - 1))
    positions = torch.cat([torch.arange(2 * third), torch.arange(third, 2 * third)]).to(model.device)
    implementation = model.config._attn_implementation
    try:
        with torch.inference_mode():
            states = hidden_states(model, ids, positions, tree_layout(segments).to(model.device))
            in_tree = OutputHead(model)(states).float().log_softmax(dim=-1)
            model.set_attn_implementation("eager")
            paths = (torch.arange(2 * third), torch.cat([torch.arange(third), torch.arange(2 * third, 3 * third)]))
            apart = [model(input_ids=ids[path][None], use_cache=False).logits[0] for path in paths]
    except ConfigurationError:
        raise
    # An architecture that passes no tree on, or has other shapes, fails inside Transformers in any way.
    except Exception as error:
        raise ConfigurationError(f"{refused}: {error}; choose another base model") from error
    finally:
        model.set_attn_implementation(implementation)
    expected = torch.cat([apart[0], apart[1][third:]]).float().log_softmax(dim=-1)
    difference = (in_tree - expected).abs().mean().item()
    # `not <=` rather than `>`: a NaN proves nothing.
    if not difference <= TOLERANCE.get(model.dtype, 0.3):
        raise ConfigurationError(
            f"{refused}: its log-probabilities differ by {difference:.3g} nats from those of one sequence each, as in "
            "models with recurrent layers; choose another base model"
        )


def probe_tokens(model: PreTrainedModel) -> torch.Tensor:
    """A dozen random tokens of the model's vocabulary, the same ones each time."""
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, model.config.get_text_config().vocab_size, (_PROBE_TOKENS,), generator=generator)


def hidden_states(model: PreTrainedModel, ids: torch.Tensor, positions: torch.Tensor, tree: TreeLayout) -> torch.Tensor:
    """The last hidden states, (tokens, size), of a packed tree."""
    decoder: Any = model.base_model
    states: torch.Tensor = decoder(
        input_ids=ids[None], position_ids=positions[None], use_cache=False, tree=tree
    ).last_hidden_state
    return states[0]
