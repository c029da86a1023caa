"""Updates are the same however they are computed: in one process or two, with layers kept, or computed twice."""

import copy
import multiprocessing
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from peft import PeftModel
from safetensors.torch import load_file
from transformers import PreTrainedModel

from learners.adapted_model import adapted_model
from learners.batches import Batches, Limits, Packer, Pool
from learners.chat import ChatTokenizer
from learners.lower_layers import LowerLayers
from learners.objectives import OBJECTIVES
from learners.objectives.objective import Example
from learners.optimisation import Learning
from learners.packed_tree import Tree
from learners.packing import TreePacker
from learners.scoring import log_probabilities
from learners.settings import LoraSettings, Stage, TrainingJob
from learners.snapshots import Snapshot
from learners.stages import Batch
from learners.trainer import train
from streams.errors import TrainingError
from streams.runtime.processes import free_port
from tests.builders.trained import settings, trajectory

UPPER = LoraSettings(rank=2, alpha=4, layers=1)
WORLD_MODEL = OBJECTIVES["world_model"]


@pytest.fixture(scope="module")
def adapted(tiny_base: Path) -> PeftModel:
    torch.manual_seed(0)
    return adapted_model(tiny_base, UPPER, None, torch.float32).train()


@pytest.fixture(scope="module")
def packer(tiny_base: Path, adapted: PeftModel) -> Packer:
    return Packer(TreePacker(ChatTokenizer(tiny_base), 2048), Limits(decoder(adapted)), {})


def decoder(adapted: PeftModel) -> PreTrainedModel:
    model = adapted.get_base_model()
    assert isinstance(model, PreTrainedModel)
    return model


def trees(packer: Packer, count: int) -> list[Tree]:
    packed = [packer.pack(Example(trajectory(number)), WORLD_MODEL) for number in range(count)]
    return [tree for tree in packed if tree is not None]


def gradients(adapted: PeftModel, batch: list[Tree], lower_bytes: int = 0, checkpointing: bool = False) -> torch.Tensor:
    adapted = copy.deepcopy(adapted)
    model = decoder(adapted)
    if checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    parameters = [parameter for parameter in adapted.parameters() if parameter.requires_grad]
    learning = Learning(model, parameters, LowerLayers(model, lower_bytes), Accelerator(cpu=True))
    for _ in range(2):  # the second time the lower layers are known
        for parameter in parameters:
            parameter.grad = None
        learning.gradients([Batch(batch, WORLD_MODEL)])
    return torch.cat([parameter.grad.flatten() for parameter in parameters if parameter.grad is not None])


def test_kept_lower_layers_and_layers_computed_twice_give_the_same_gradients_to_the_bit(
    adapted: PeftModel, packer: Packer
) -> None:
    batch = trees(packer, 3)
    expected = gradients(adapted, batch)
    assert expected.abs().max() > 0
    assert torch.equal(gradients(adapted, batch, lower_bytes=2**24), expected)
    assert torch.equal(gradients(adapted, batch, checkpointing=True), expected)


def test_lower_layers_are_kept_as_far_as_there_is_room_and_never_computed_again(
    adapted: PeftModel, packer: Packer
) -> None:
    model = decoder(adapted)
    first, second = trees(packer, 2)
    lower = LowerLayers(model, first.length * model.config.hidden_size * 4)
    assert lower.count == 1
    computed = []
    hook = model.get_submodule("model.layers.0.self_attn").register_forward_hook(lambda *_: computed.append(1))
    with torch.no_grad():
        expected = [log_probabilities(model, tree) for tree in (first, second)]
        computed.clear()
        for _ in range(3):
            for tree, scores in zip((first, second), expected, strict=True):
                assert torch.equal(log_probabilities(model, tree, lower), scores)
    hook.remove()
    assert lower.trees == 1
    assert len(computed) == 1 + 3


def test_where_all_layers_are_adapted_nothing_is_kept(tiny_base: Path, packer: Packer) -> None:
    model = decoder(adapted_model(tiny_base, LoraSettings(rank=2), None, torch.float32))
    lower = LowerLayers(model, 2**24)
    (tree,) = trees(packer, 1)
    with torch.no_grad():
        log_probabilities(model, tree, lower)
    assert (lower.count, lower.trees) == (0, 0)


def test_an_update_of_so_many_tokens_holds_no_more_and_sees_every_example_before_any_again(packer: Packer) -> None:
    examples = [Example(trajectory(number)) for number in range(5)]
    one = trees(packer, 1)[0].length

    def lengths(tokens: int, count: int) -> list[int]:
        pool = Pool(5, torch.Generator().manual_seed(0))
        batches = Batches(examples, WORLD_MODEL, packer, pool, 1, tokens)
        return [len(batches.next()) for _ in range(count)]

    assert lengths(2 * one + one // 2, 5) == [2] * 5
    assert lengths(one // 2, 3) == [1] * 3, "a tree that alone has more is a batch of its own"
    pool = Pool(5, torch.Generator().manual_seed(0))
    batches = Batches(examples, WORLD_MODEL, packer, pool, 1, 2 * one + one // 2)
    seen = [tuple(tree.ids.tolist()) for _ in range(5) for tree in batches.next()]
    assert len(set(seen[:5])) == len(set(seen[5:])) == 5


@pytest.mark.parametrize(
    "error", [MemoryError(), torch.OutOfMemoryError("CUDA"), RuntimeError("DefaultCPUAllocator: can't allocate memory")]
)
def test_out_of_memory_is_said_as_such_with_the_tree_and_the_remedy(
    adapted: PeftModel, packer: Packer, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(*_: object) -> torch.Tensor:
        raise error

    monkeypatch.setattr("learners.optimisation.log_probabilities", fail)
    batch = trees(packer, 1)
    with pytest.raises(TrainingError, match=rf"out of memory .* {batch[0].length} tokens .*gradient_checkpointing"):
        gradients(adapted, batch)


@pytest.mark.slow
def test_interpolation_stops_between_the_parent_and_what_was_trained(
    tiny_base: Path, snapshot: Snapshot, tmp_path: Path
) -> None:
    short = settings(Stage(objective="imitation", updates=2), lora=UPPER)
    job = TrainingJob(base=tiny_base, snapshot=snapshot.folder, output=tmp_path / "parent", settings=short)
    train(job)
    found = {}
    for share in (1.0, 0.25):
        chosen = short.model_copy(update={"interpolation": share})
        child = job.model_copy(
            update={"output": tmp_path / str(share), "parent": tmp_path / "parent", "settings": chosen}
        )
        train(child)
        found[share] = load_file(child.output / "adapter_model.safetensors")
    parent = load_file(tmp_path / "parent" / "adapter_model.safetensors")
    for name, weights in parent.items():
        torch.testing.assert_close(found[0.25][name], weights + 0.25 * (found[1.0][name] - weights))


def in_one_of_two(rank: int, port: int, adapted: PeftModel, batch: list[Tree], answers: Any) -> None:
    place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    os.environ.update({name: str(value) for name, value in place.items()}, ACCELERATE_USE_CPU="1")
    AcceleratorState._reset_state(reset_partial_state=True)  # the parent was alone
    answers.put(gradients(adapted, batch).tolist())


@pytest.mark.slow
def test_two_processes_give_the_gradients_of_one(adapted: PeftModel, packer: Packer) -> None:
    batch, port = trees(packer, 3), free_port()
    forked = multiprocessing.get_context("fork")
    answers: Any = forked.Queue()
    ranks = [forked.Process(target=in_one_of_two, args=(rank, port, adapted, batch, answers)) for rank in range(2)]
    for process in ranks:
        process.start()
    shared = [torch.tensor(answers.get(timeout=300)) for _ in ranks]
    for process in ranks:
        process.join()
    assert torch.equal(*shared)
    torch.testing.assert_close(shared[0], gradients(adapted, batch), rtol=1e-5, atol=1e-6)
