"""Estimates the memory that a training needs, from the base model's shape and the settings. `ratchet doctor` asks.

Fitted in November 2026 to training processes of SmolLM2-135M, whose peaks (`VmHWM`) it meets within 10%, as
`tests/learners/test_memory.py` checks. Its parts are the libraries, the weights, the adapter with its gradient and
AdamW's two moments, what each token leaves for the backward pass, and the output layer's rows of the counted tokens.
"""

import json
from dataclasses import dataclass
from math import prod
from pathlib import Path

from learners.settings import LearnerSettings
from ratchet_client.errors import ConfigurationError

LIBRARIES = 530 * 2**20
"""Bytes of a process that has loaded Torch, Transformers and PEFT."""
_ADAPTER_BYTES = 16  # float32: weight, gradient, two moments
_OF_HIDDEN, _OF_INNER = 20, 6  # values that a layer keeps of each token, in multiples of its two widths
# The adapter's part of a layer is computed in float32, whatever the weights are.
_BYTES_KEPT = {2: 2.75, 4: 4.0}
_OUTPUT_BYTES = 14  # of each word of the vocabulary: scores, their float32 copy, its softmax, the gradient
_COUNTED = 0.5  # of the tokens, about so many are learned
_LEARN_BRANCHES = {"world_model", "preference_dpo", "preference_kto"}


@dataclass(frozen=True, slots=True)
class Shape:
    """The sizes of a decoder. `parameters` are all of its weights."""

    parameters: int
    layers: int
    hidden: int
    inner: int
    heads_width: int
    keys_width: int
    vocabulary: int

    @classmethod
    def read(cls, base: Path) -> "Shape":
        """The shape of the model in a Hugging Face folder. Raises `ConfigurationError` when its files do not say."""
        try:
            whole = json.loads((base / "config.json").read_text())
            config = whole.get("text_config") or whole
            hidden, heads = int(config["hidden_size"]), int(config["num_attention_heads"])
            width = int(config.get("head_dim") or hidden // heads)
            shape = cls(
                parameters=_stored_parameters(base),
                layers=int(config["num_hidden_layers"]),
                hidden=hidden,
                inner=int(config["intermediate_size"]),
                heads_width=heads * width,
                keys_width=int(config.get("num_key_value_heads") or heads) * width,
                vocabulary=int(config["vocab_size"]),
            )
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise ConfigurationError(f"{base} does not say how large its model is: {error!r}") from error
        if not shape.parameters:
            raise ConfigurationError(f"{base} has no weights as safetensors, so that their number is not known")
        return shape


EMBEDDED_SHAPE = Shape(134_515_008, 30, 576, 1536, 576, 192, 49_152)
"""SmolLM2-135M-Instruct, which is converted at the first start."""


def training_memory(
    shape: Shape, settings: LearnerSettings, longest_episode: int, dtype_bytes: int, counted: float = _COUNTED
) -> int:
    """The most bytes that a training process will have, about.

    Trees are learned one after the other, so the longest counts: `longest_episode` tokens, or up to
    `settings.max_length` where a stage learns branches or an update's episodes are joined. `dtype_bytes` is the size
    of a weight, `counted` the share of tokens learned.
    """
    branches = any(_LEARN_BRANCHES.intersection(stage.objectives) for stage in settings.stages)
    together = max((stage.trajectories for stage in settings.stages), default=1)
    joined = settings.max_length if branches or settings.tokens_per_update else together * longest_episode
    tokens = max(longest_episode, min(joined, settings.max_length))
    kept = shape.layers * (_OF_HIDDEN * shape.hidden + _OF_INNER * shape.inner) * _BYTES_KEPT[dtype_bytes]
    widths = 2 * (shape.hidden + shape.heads_width) + 2 * (shape.hidden + shape.keys_width)
    widths += 3 * (shape.hidden + shape.inner)
    adapted = min(settings.lora.layers or shape.layers, shape.layers)
    adapter = settings.lora.rank * widths * adapted * _ADAPTER_BYTES
    output = counted * shape.vocabulary * _OUTPUT_BYTES
    return round(LIBRARIES + shape.parameters * dtype_bytes + adapter + tokens * (kept + output))


def _stored_parameters(base: Path) -> int:
    """The number of weights in the safetensors files, from their headers."""
    total = 0
    for path in base.glob("*.safetensors"):
        with path.open("rb") as file:
            header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        total += sum(prod(tensor["shape"]) for name, tensor in header.items() if name != "__metadata__")
    return total
