"""An adapter damaged on purpose, by which the demo shows that the gate keeps such a one from serving."""

import shutil
import tempfile
from pathlib import Path

from learners.adapters import AdapterStore


def damaged_copy(adapters: AdapterStore, digest: str, seed: int, strength: float = 3.0) -> str:
    """Enter a copy of an adapter whose weights got Gaussian noise; the digest of the copy.

    The noise of each tensor has `strength` times the tensor's own standard deviation. The manifest says what was done.
    """
    import torch
    from safetensors.torch import load_file, save_file

    generator = torch.Generator().manual_seed(seed)
    with tempfile.TemporaryDirectory() as scratch:
        copy = Path(scratch) / "adapter"
        shutil.copytree(adapters.folder(digest), copy)
        weights = copy / "adapter_model.safetensors"
        damaged = {
            name: tensor + torch.randn(tensor.shape, generator=generator).to(tensor.dtype) * tensor.std() * strength
            for name, tensor in load_file(weights).items()
        }
        save_file(damaged, weights, metadata={"format": "pt"})
        manifest = adapters.manifest(digest)
        note = f"noise of {strength:g} standard deviations was added to the weights of {digest}"
        return adapters.add(copy, manifest.model_copy(update={"parent": digest, "note": note}))
