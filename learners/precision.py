"""The number format that this machine multiplies fastest, for the trainer and the embedded inference server."""

from typing import Literal

import torch


def compute_dtype(
    choice: Literal["auto", "bfloat16", "float32"] = "auto", device: torch.device | None = None
) -> torch.dtype:
    """The data type that `choice` stands for on a device, this processor by default."""
    if choice == "auto" and device is not None and device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float32
    if choice == "auto":
        features = torch.cpu.get_capabilities()
        native = features.get("avx512_bf16") or features.get("amx_bf16")
        # Without such instructions bfloat16 is emulated and slower than float32.
        return torch.bfloat16 if native else torch.float32
    return torch.bfloat16 if choice == "bfloat16" else torch.float32
