"""Training with the base sharded over two processes is training in one; what it writes is a whole adapter."""

import multiprocessing
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator, DistributedType
from accelerate.state import AcceleratorState
from peft import PeftModel
from safetensors.torch import load_file
from torch.distributed.tensor import DTensor
from transformers import PreTrainedModel

from learners.adapted_model import adapted_model
from learners.batches import Limits, Packer
from learners.chat import ChatTokenizer
from learners.lower_layers import LowerLayers
from learners.objectives import OBJECTIVES
from learners.objectives.objective import Example
from learners.optimisation import Learning
from learners.packed_tree import Tree
from learners.packing import TreePacker
from learners.scoring import Reference
from learners.settings import CHECKPOINT, LoraSettings, Stage, TrainingJob
from learners.sharding import shard
from learners.snapshots import Snapshot
from learners.stages import Batch
from learners.trainer import train
from streams.runtime.processes import free_port
from tests.builders.trained import settings, trajectory

pytestmark = pytest.mark.slow
UPPER = LoraSettings(rank=2, alpha=4, layers=1)
WORLD_MODEL = OBJECTIVES["world_model"]


def in_two(work: Callable[..., object], *given: object) -> list[Any]:
    """Run `work`(accelerator, *given) in two processes; returns what each returned, in their order."""
    forked = multiprocessing.get_context("fork")
    answers: Any = forked.Queue()
    port = free_port()
    ranks = [forked.Process(target=_one_of_two, args=(rank, port, work, given, answers)) for rank in range(2)]
    for process in ranks:
        process.start()
    found = dict(answers.get(timeout=300) for _ in ranks)
    for process in ranks:
        process.join()
    return [found[rank] for rank in range(2)]


def _one_of_two(rank: int, port: int, work: Callable[..., object], given: tuple[object, ...], answers: Any) -> None:
    place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    os.environ.update({name: str(value) for name, value in place.items()}, ACCELERATE_USE_CPU="1")
    AcceleratorState._reset_state(reset_partial_state=True)  # the parent was alone
    accelerator = Accelerator()
    # accelerate itself knows FSDP on GPUs only.
    accelerator.state.distributed_type = DistributedType.FSDP
    # As its launcher sets them; Transformers then loads the base in the main process alone.
    os.environ.update(ACCELERATE_USE_FSDP="true", FSDP_CPU_RAM_EFFICIENT_LOADING="true")
    answers.put((rank, work(accelerator, *given)))


def decoder(adapted: PeftModel) -> PreTrainedModel:
    model = adapted.get_base_model()
    assert isinstance(model, PreTrainedModel)
    return model


def gradients(learning: Learning, batch: list[Tree], referenced: bool) -> torch.Tensor:
    reference = Reference(learning.model, learning.parameters, learning.lower) if referenced else None
    learning.gradients([Batch(batch, WORLD_MODEL, reference)])
    return torch.cat([parameter.grad.flatten() for parameter in learning.parameters if parameter.grad is not None])


def trained_parameters(adapted: PeftModel) -> list[torch.nn.Parameter]:
    return [parameter for parameter in adapted.parameters() if parameter.requires_grad]


def sharded_gradients(
    accelerator: Accelerator, base: Path, lora: LoraSettings, batch: list[Tree], checkpointing: bool
) -> tuple[list[float], int]:
    """The gradients of the batch, and the weights of the base's layers that this process holds."""
    torch.manual_seed(accelerator.process_index)  # the main process' values count
    adapted = adapted_model(base, lora, None, torch.float32).train()
    model = decoder(adapted)
    if checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    shard(adapted, accelerator.device, 2)
    learning = Learning(model, trained_parameters(adapted), LowerLayers(model, 2**24), accelerator, sharded=True)
    held = sum(parameter.to_local().numel() for parameter in model.parameters() if isinstance(parameter, DTensor))
    return gradients(learning, batch, referenced=True).tolist(), held


@pytest.mark.parametrize(
    ("lora", "checkpointing"), [(UPPER, False), (LoraSettings(rank=2, alpha=4), True)], ids=["upper", "checkpointing"]
)
def test_two_processes_that_share_the_base_give_the_gradients_of_one(
    tiny_base: Path, lora: LoraSettings, checkpointing: bool
) -> None:
    torch.manual_seed(0)
    adapted = adapted_model(tiny_base, lora, None, torch.float32).train()
    model = decoder(adapted)
    packer = Packer(TreePacker(ChatTokenizer(tiny_base), 2048), Limits(model), {})
    # Three trees: the second process runs one that does not count.
    packed = [packer.pack(Example(trajectory(number)), WORLD_MODEL) for number in range(3)]
    batch = [tree for tree in packed if tree is not None]
    alone = Learning(model, trained_parameters(adapted), LowerLayers(model, 0), Accelerator(cpu=True))
    expected = gradients(alone, batch, referenced=False)
    assert expected.abs().max() > 0
    (first, held), (second, also_held) = in_two(sharded_gradients, tiny_base, lora, batch, checkpointing)
    assert first == second
    torch.testing.assert_close(torch.tensor(first), expected, rtol=1e-5, atol=1e-6)
    layers = [name_and_weights for name_and_weights in model.named_parameters() if ".layers." in name_and_weights[0]]
    in_layers = sum(weights.numel() for _, weights in layers if not weights.requires_grad)
    assert held + also_held == in_layers
    assert abs(held - also_held) < in_layers / 10


def train_sharded(accelerator: Accelerator, job: TrainingJob) -> bool:
    with pytest.MonkeyPatch.context() as patch:
        # The trainer's own would ask accelerate for a GPU.
        patch.setattr("learners.trainer._accelerator", lambda _: accelerator)
        train(job)
    return bool(accelerator.is_main_process)


def test_a_sharded_training_writes_the_adapter_of_one_process(
    tiny_base: Path, snapshot: Snapshot, tmp_path: Path
) -> None:
    chosen = settings(Stage(objective="imitation", updates=4), lora=UPPER)
    job = TrainingJob(base=tiny_base, snapshot=snapshot.folder, output=tmp_path / "alone", settings=chosen)
    train(job)
    both = job.model_copy(update={"output": tmp_path / "both"})
    assert in_two(train_sharded, both) == [True, False]
    alone, together = (load_file(one.output / "adapter_model.safetensors") for one in (job, both))
    assert alone.keys() == together.keys()
    for name, weights in alone.items():
        torch.testing.assert_close(together[name], weights, rtol=1e-5, atol=1e-5)
    assert not (both.output / CHECKPOINT).exists()
    assert (both.output / "adapter_config.json").read_bytes() == (job.output / "adapter_config.json").read_bytes()
