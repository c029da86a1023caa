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

from learners.packed_tree import Tree

_NUMBERED = re.compile(r"(?P<blocks>.+?)\.(?P<number>\d+)\.")


class LowerLayers:
    """Outputs of the layers below the first adapted one, for trees of `most_bytes` in all; on CPU memory."""

    def __init__(self, model: nn.Module, most_bytes: int) -> None:
        self._blocks = _below_adapters(model) if most_bytes else []
        self._left = most_bytes
        self._kept: dict[bytes, torch.Tensor] = {}

    @property
    def count(self) -> int:
        """The number of layers that need not be computed again."""
        return len(self._blocks)

    @property
    def trees(self) -> int:
        """The number of trees whose output is kept."""
        return len(self._kept)

    @contextmanager
    def known(self, tree: Tree) -> Iterator[None]:
        """Within it the model, which must be given `tree`, passes over what is known of it, or it becomes known."""
        if not self._blocks:
            yield
            return
        key = _key(tree)
        kept = self._kept.get(key)
        if kept is not None:
            with _replaced(self._blocks, kept.to(tree.ids.device)):
                yield
            return
        # Every layer's output may be a tuple in some architectures; those are computed each time.
        hook = self._blocks[-1].register_forward_hook(lambda _module, _given, output: self._keep(key, output))
        try:
            yield
        finally:
            hook.remove()

    def _keep(self, key: bytes, output: Any) -> None:
        if isinstance(output, torch.Tensor) and (size := output.nbytes) <= self._left:
            self._left -= size
            self._kept[key] = output.detach().cpu().clone()


def _below_adapters(model: nn.Module) -> list[nn.Module]:
    """The blocks of the decoder before the first that has an adapter, in order; none where something else has one."""
    places = [_NUMBERED.match(name) for name, module in model.named_modules() if isinstance(module, LoraLayer)]
    found = [place for place in places if place is not None]
    if len(found) < len(places) or len({place["blocks"] for place in found}) != 1:
        return []
    blocks = model.get_submodule(found[0]["blocks"])
    first = min(int(place["number"]) for place in found)
    return list(blocks.children())[:first]


@contextmanager
def _replaced(blocks: list[nn.Module], states: torch.Tensor) -> Iterator[None]:
    """Within it the blocks compute nothing, and the last of them gives `states`."""
    for block in blocks:
        block.forward = _gives(states)
    try:
        yield
    finally:
        for block in blocks:
            del block.forward


def _gives(states: torch.Tensor) -> Callable[..., torch.Tensor]:
    return lambda *_, **__: states


def _key(tree: Tree) -> bytes:
    """The same for trees whose tokens see the same."""
    groups = [(group.start, group.stop, group.parent_end) for group in tree.layout.groups]
    digest = sha256(repr(groups).encode())
    digest.update(tree.ids.cpu().numpy().tobytes())
    digest.update(tree.positions.cpu().numpy().tobytes())
    return digest.digest()
