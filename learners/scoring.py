"""The log-probabilities of a packed tree's counted tokens, by the policy as it is and as it was."""

from collections.abc import Sequence

import torch
from transformers import PreTrainedModel

from learners.architecture import hidden_states
from learners.lower_layers import LowerLayers
from learners.output_head import OutputHead
from learners.packed_tree import Tree


def log_probabilities(model: PreTrainedModel, tree: Tree, lower: LowerLayers | None = None) -> torch.Tensor:
    """The log-probabilities of the counted tokens, in nats: (counted tokens,), float32.

    What `lower` knows of the tree is not computed again.
    """
    if lower is None:
        hidden = hidden_states(model, tree.ids, tree.positions, tree.layout)
    else:
        with lower.known(tree):
            hidden = hidden_states(model, tree.ids, tree.positions, tree.layout)
    # Only counted tokens go through the output layer, which is a fifth of a small model.
    logits = OutputHead(model)(hidden[tree.predictors]).float()
    return logits.log_softmax(dim=-1).gather(1, tree.ids[tree.targets][:, None])[:, 0]


class Reference:
    """The policy as it was when a stage began: the weights that are trained, kept, and put back for a moment."""

    def __init__(
        self, model: PreTrainedModel, parameters: Sequence[torch.nn.Parameter], lower: LowerLayers | None = None
    ) -> None:
        self._model = model
        self._parameters = parameters
        self._lower = lower
        self.kept = [parameter.detach().clone() for parameter in parameters]

    @torch.no_grad()
    def log_probabilities(self, tree: Tree) -> torch.Tensor:
        """As the function of that name has them."""
        now = [parameter.detach().clone() for parameter in self._parameters]
        set_values(self._parameters, self.kept)
        try:
            return log_probabilities(self._model, tree, self._lower)
        finally:
            set_values(self._parameters, now)


def set_values(parameters: Sequence[torch.nn.Parameter], values: Sequence[torch.Tensor]) -> None:
    """Put `values` in the place of the parameters' own, which stay where they are in memory."""
    for parameter, value in zip(parameters, values, strict=True):
        parameter.data.copy_(value)
