"""A linear layer with LoRA, computed in the base's data type: its two small products are added in place.

After *LoRA: Low-Rank Adaptation of Large Language Models* (arXiv 2106.09685), section 4.1. PEFT's own layer copies its
inputs to the adapter's float32, multiplies there, and has a tensor of the output's size for the product, for its
scaling and for the sum. On a CPU that was about 30% of an update's processor time (SmolLM2-135M, bfloat16).
Weights stay float32, and so do their gradients' sums.
"""

from collections.abc import Callable
from typing import Any

import torch
from peft.tuners import lora
from torch import Tensor, nn


class LoraLinear(lora.Linear):
    """PEFT's layer over an `nn.Linear`, with a forward pass of its own for plain LoRA, and PEFT's for all else."""

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Inputs (..., in) to outputs (..., out), both in the base's data type."""
        if args or kwargs or self.merged or self.disable_adapters or not self._is_plain():
            given: Tensor = super().forward(x, *args, **kwargs)
            return given
        (name,) = self.active_adapters
        base = self.get_base_layer()
        # Torch has no type for it.
        product: Callable[..., Tensor] = _Product.apply
        return product(
            x, base.weight, base.bias, self.lora_A[name].weight, self.lora_B[name].weight, self.scaling[name]
        )

    def _is_plain(self) -> bool:
        """Return whether one adapter is active, without dropout, bias or another method's variant of LoRA."""
        names = self.active_adapters
        return (
            len(names) == 1
            and (name := names[0]) in self.lora_A
            and name not in self.lora_variant
            and isinstance(self.lora_dropout[name], nn.Identity)
            and self.lora_B[name].bias is None
        )


class _Product(torch.autograd.Function):
    """`x Wᵀ + b + s (x Aᵀ) Bᵀ`, with no gradients for W and b, which are frozen.

    Shapes: x (..., in), W (out, in), b (out), A (rank, in), B (out, rank).
    """

    @staticmethod
    def forward(
        ctx: Any, inputs: Tensor, weight: Tensor, bias: Tensor | None, down: Tensor, up: Tensor, scaling: float
    ) -> Tensor:
        rows = inputs.flatten(0, -2)
        down, up = down.to(rows.dtype), up.to(rows.dtype)
        low = rows @ down.T
        outputs = nn.functional.linear(rows, weight, bias).addmm_(low, up.T, alpha=scaling)
        ctx.save_for_backward(rows, weight, down, up, low)
        ctx.scaling = scaling
        return outputs.reshape(*inputs.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        rows, weight, down, up, low = ctx.saved_tensors
        gradient = gradients[0].flatten(0, -2)
        low_gradient = (gradient @ up).mul_(ctx.scaling)
        inputs_gradient = None
        if ctx.needs_input_grad[0]:
            inputs_gradient = (gradient @ weight).addmm_(low_gradient, down)
            inputs_gradient = inputs_gradient.reshape(*gradients[0].shape[:-1], -1)
        down_gradient = (low_gradient.T @ rows).float()
        up_gradient = (gradient.T @ low).float().mul_(ctx.scaling)
        return inputs_gradient, None, None, down_gradient, up_gradient, None
