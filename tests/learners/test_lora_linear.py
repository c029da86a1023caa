"""The layer with LoRA gives the outputs and the gradients of PEFT's own."""

import copy
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners import lora
from torch import Tensor, nn

from learners.adapted_model import adapted_model
from learners.lora_linear import LoraLinear
from learners.settings import LoraSettings

# Of the largest value; in bfloat16 both round, and PEFT's layer later than ours.
NOISE = {torch.float32: 1e-5, torch.bfloat16: 0.02}


class Model(nn.Module):
    """One linear layer, for which PEFT has a place of its own."""

    def __init__(self, dtype: torch.dtype, *, bias: bool) -> None:
        super().__init__()
        self.linear = nn.Linear(24, 40, bias=bias, dtype=dtype)

    def forward(self, x: Tensor) -> Tensor:
        outputs: Tensor = self.linear(x)
        return outputs


def pair(dtype: torch.dtype, *, bias: bool = True, **kwargs: Any) -> tuple[PeftModel, PeftModel]:
    """The same adapter of the same layer: ours and PEFT's."""
    torch.manual_seed(0)
    model, found = Model(dtype, bias=bias), []
    for own in (True, False):
        config = LoraConfig(r=4, lora_alpha=10, target_modules=["linear"], **kwargs)
        if own:
            config._register_custom_module({nn.Linear: LoraLinear})
        torch.manual_seed(1)
        adapted = get_peft_model(copy.deepcopy(model), config)
        for parameter in adapted.parameters():
            if parameter.requires_grad:
                nn.init.normal_(parameter, std=0.2)
        found.append(adapted)
    assert [type(layer(adapted)) for adapted in found] == [LoraLinear, lora.Linear]
    return found[0], found[1]


def layer(adapted: PeftModel) -> lora.Linear:
    return cast(lora.Linear, adapted.get_base_model().get_submodule("linear"))


def agree(ours: Tensor | None, theirs: Tensor | None, noise: float) -> None:
    assert ours is not None
    assert theirs is not None
    assert (ours.shape, ours.dtype) == (theirs.shape, theirs.dtype)
    assert (ours - theirs).abs().max() <= noise * theirs.abs().max()


@pytest.mark.parametrize("dtype", NOISE)
@pytest.mark.parametrize("bias", [True, False])
def test_outputs_and_gradients_are_those_of_pefts_layer(dtype: torch.dtype, bias: bool) -> None:
    models = pair(dtype, bias=bias)
    given = [torch.randn(2, 7, 24, generator=torch.Generator().manual_seed(2)).to(dtype) for _ in models]
    outputs = [model(x.requires_grad_()) for model, x in zip(models, given, strict=True)]
    agree(outputs[0], outputs[1], NOISE[dtype])
    for each in outputs:
        each.float().square().sum().backward()
    agree(given[0].grad, given[1].grad, NOISE[dtype])
    trained = [[one for one in model.parameters() if one.requires_grad] for model in models]
    for ours, theirs in zip(*trained, strict=True):
        assert ours.dtype == torch.float32
        agree(ours.grad, theirs.grad, NOISE[dtype])
    assert all(one.grad is None for model in models for one in model.parameters() if not one.requires_grad)


def test_inputs_that_need_no_gradient_get_none() -> None:
    ours, theirs = pair(torch.float32)
    x = torch.randn(3, 24)
    for model in (ours, theirs):
        model(x).sum().backward()
    assert x.grad is None
    down = [layer(model).get_parameter("lora_A.default.weight") for model in (ours, theirs)]
    agree(down[0].grad, down[1].grad, noise=1e-5)


def test_without_its_adapter_or_with_it_merged_the_layer_is_pefts() -> None:
    ours, theirs = pair(torch.float32)
    x = torch.randn(3, 24)
    adapted = ours(x)
    with ours.disable_adapter():
        agree(ours(x), layer(theirs).get_base_layer()(x), noise=0)
    ours.merge_adapter()
    agree(ours(x), adapted, noise=1e-5)
    assert (layer(ours).get_base_layer()(x) - adapted).abs().max() < 1e-4


@pytest.mark.parametrize("kwargs", [{"use_dora": True}, {"lora_bias": True}, {"lora_dropout": 0.5}])
def test_other_kinds_of_lora_are_computed_by_peft(kwargs: dict[str, Any]) -> None:
    ours, theirs = pair(torch.float32, **kwargs)
    x, found = torch.randn(3, 24), []
    for model in (ours, theirs):
        torch.manual_seed(4)
        found.append(model(x))
    agree(found[0], found[1], noise=0)


def test_every_adapted_layer_is_ours_also_when_it_is_trained_on_and_pefts_when_it_is_read(
    tiny_base: Path, tmp_path: Path
) -> None:
    first = adapted_model(tiny_base, LoraSettings(rank=2), None, torch.float32)
    first.save_pretrained(str(tmp_path))
    on = adapted_model(tiny_base, LoraSettings(), tmp_path, torch.float32)
    for adapted in (first, on):
        kinds = {type(module).__name__ for module in adapted.modules() if isinstance(module, lora.LoraLayer)}
        assert kinds == {"LoraLinear"}
    assert not (tmp_path / "adapter_config.json").read_text().count("custom")
