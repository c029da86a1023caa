"""From last hidden states to logits by the model's own code, so that scaling and soft caps are never left out.

The trainer needs the logits of counted tokens only, and the embedded server those of some tokens of many sequences.
"""

import copy
from typing import Any, cast

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.modeling_outputs import MoeModelOutputWithPast


class OutputHead:
    """The output layer of a causal language model, with whatever the model does around it."""

    def __init__(self, model: PreTrainedModel) -> None:
        # The model's own forward over its own output layer; only its decoder is replaced, by the states it is given.
        head: Any = copy.copy(model)
        head._modules = {**model._modules, model.base_model_prefix: _GivenStates()}
        self._head = head

    def __call__(self, hidden: torch.Tensor) -> torch.Tensor:
        """Logits, (tokens, vocabulary), of last hidden states, (tokens, size)."""
        return cast(torch.Tensor, self._head(inputs_embeds=hidden[None], use_cache=False).logits[0])


class _GivenStates(nn.Module):
    """Takes the place of a decoder and returns the states that it was given as embeddings."""

    def forward(self, *_: Any, inputs_embeds: torch.Tensor, **__: Any) -> MoeModelOutputWithPast:
        return MoeModelOutputWithPast(last_hidden_state=cast(Any, inputs_embeds))
