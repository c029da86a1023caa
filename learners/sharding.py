"""Fully sharded training (FSDP): of each layer of the base a process holds a part, and the whole only in its turn.

For bases that do not fit on one device; by Torch's `fully_shard`, after *PyTorch FSDP: Experiences on Scaling Fully
Sharded Data Parallel* (arXiv 2304.11277). The adapter, which is small, stays whole in every process, as do the
embeddings and the output layer: gradients, optimizer, checkpoints and the reference policy are those of any training.
"""

from itertools import chain

import torch
from peft import PeftModel
from torch import nn
from torch.distributed import broadcast
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from transformers import PreTrainedModel

from ratchet_client.errors import ConfigurationError


def shard(adapted: PeftModel, device: torch.device, processes: int) -> None:
    """Move the model to the processes' devices, a part of each layer to each; the values are the main process'.

    All processes call it, and from then on run the model equally often. Raises `ConfigurationError` for a model that
    does not say which of its modules are its layers.
    """
    model = adapted.get_base_model()
    assert isinstance(model, PreTrainedModel)
    layers = [module for module in model.modules() if type(module).__name__ in (model._no_split_modules or ())]
    if not layers:
        raise ConfigurationError(
            f"{type(model).__name__} does not say which of its modules are its layers, so FSDP cannot shard it: choose "
            "another base model, or one that fits on one device"
        )
    mesh = init_device_mesh(device.type, (processes,))
    whole = set(adapted.parameters())
    for layer in layers:
        _place(layer, device)
        trained = {parameter for parameter in layer.parameters() if parameter.requires_grad}
        whole -= set(layer.parameters()) - trained
        fully_shard(layer, mesh=mesh, reshard_after_forward=True, ignored_params=trained)
    sharded = set(adapted.parameters()) - whole
    # With a common root a layer is fetched while the one before it computes.
    fully_shard(model.base_model, mesh=mesh, ignored_params=whole)
    _place(adapted, device, sharded)


def _place(
    module: nn.Module, device: torch.device, placed: frozenset[nn.Parameter] | set[nn.Parameter] = frozenset()
) -> None:
    """Move a module to the device with the main process' values: the others may have been loaded without any."""
    module.to(device)
    for tensor in chain(module.parameters(), module.buffers()):
        if tensor not in placed:
            broadcast(tensor.detach(), src=0)
