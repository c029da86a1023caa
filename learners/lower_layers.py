"""The output of the layers below the adapted ones, computed once per tree and kept: no update changes it.

With `learner.lora.layers` only the upper layers are adapted. The same tree comes back in every round of a stage, and
below the first adapted layer it is computed as the first time, to the bit. What is kept is never dropped for another
tree: trees come in rounds, of which the least recently used one is the next to come.
"""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from typing import Any

import torch
from peft.tuners.lora import LoraLayer
from torch import nn
from transformers import PreTrainedModel

from learners.architecture import hidden_states
from learners.packed_tree import Tree

_NUMBERED = re.compile(r"(?P<blocks>.+?)\.(?P<number>\d+)\.")


class LowerLayers:
    """Outputs of the layers below the first adapted one, for trees of `most_bytes` in all; on CPU memory."""

    def __init__(self, model: PreTrainedModel, most_bytes: int) -> None:
        self._model = model
        self._below, self._above = _around_first_adapter(model) if most_bytes else ([], [])
        self._left = most_bytes
        self._kept: dict[bytes, torch.Tensor] = {}

    @property
    def count(self) -> int:
        """The number of layers that need not be computed again."""
        return len(self._below)

    @property
    def trees(self) -> int:
        """The number of trees whose output is kept."""
        return len(self._kept)

    @contextmanager
    def known(self, tree: Tree) -> Iterator[None]:
        """Within it the model, which must be given `tree`, passes over what is known of it, or it becomes known."""
        if not self._below:
            yield
            return
        known = self._joined(tree) if tree.parts else self._kept.get(_key(tree))
        if known is not None:
            with _replaced(self._below, _giving(known.to(tree.ids.device))):
                yield
        elif tree.parts:
            yield
        else:
            with self._seen(tree):
                yield

    @contextmanager
    def _seen(self, tree: Tree) -> Iterator[list[torch.Tensor]]:
        """What the last lower layer gives for `tree` meanwhile; it is kept, too, as far as there is room."""
        found: list[torch.Tensor] = []

        def take(_module: nn.Module, _given: Any, output: Any) -> None:
            # Every layer's output may be a tuple in some architectures; those are computed each time.
            if isinstance(output, torch.Tensor):
                found.append(output.detach())
                if output.nbytes <= self._left:
                    self._left -= output.nbytes
                    self._kept[_key(tree)] = output.detach().cpu().clone()

        hook = self._below[-1].register_forward_hook(take)
        try:
            yield found
        finally:
            hook.remove()

    def _joined(self, tree: Tree) -> torch.Tensor | None:
        """The output for a joined tree, (1, tokens, size); None in an architecture where it is not known.

        Parts are computed one by one, so that it does not depend on what they were joined with, or what is kept.
        """
        whole: torch.Tensor | None = None
        for part in tree.parts:
            output = self._kept.get(_key(part.tree))
            if output is None:
                with torch.no_grad(), self._seen(part.tree) as found, _replaced(self._above, _passing_on):
                    hidden_states(self._model, part.tree.ids, part.tree.positions, part.tree.layout)
                if not found:
                    return None
                output = found[0].cpu()
            if whole is None:
                whole = output.new_empty(1, tree.length, output.shape[-1])
            whole[:, part.places.cpu()] = output
        return whole


def _around_first_adapter(model: nn.Module) -> tuple[list[nn.Module], list[nn.Module]]:
    """The blocks of the decoder before the first that has an adapter, and the others, each in order.

    None before it where something else than a block has an adapter.
    """
    places = [_NUMBERED.match(name) for name, module in model.named_modules() if isinstance(module, LoraLayer)]
    found = [place for place in places if place is not None]
    if len(found) < len(places) or len({place["blocks"] for place in found}) != 1:
        return [], []
    blocks = list(model.get_submodule(found[0]["blocks"]).children())
    first = min(int(place["number"]) for place in found)
    return blocks[:first], blocks[first:]


@contextmanager
def _replaced(blocks: list[nn.Module], forward: Callable[..., torch.Tensor]) -> Iterator[None]:
    """Within it the blocks compute nothing but `forward`."""
    for block in blocks:
        block.forward = forward
    try:
        yield
    finally:
        for block in blocks:
            del block.forward


def _giving(states: torch.Tensor) -> Callable[..., torch.Tensor]:
    return lambda *_, **__: states


def _passing_on(states: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
    return states


def _key(tree: Tree) -> bytes:
    """The same for trees whose tokens see the same."""
    digest = sha256(repr(tree.layout.segments).encode())
    digest.update(tree.ids.cpu().numpy().tobytes())
    digest.update(tree.positions.cpu().numpy().tobytes())
    return digest.digest()
