"""A real vLLM of a tiny base model, and real adapters of it. `make test-vllm` runs what is here."""

from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig

from learners.base_model import embedded_tokenizer_files
from tests.builders.engines import VLLM, VllmEngine
from tests.daemon.conftest import make_adapter as make_adapter
from tests.daemon.conftest import registry as registry

# What one server takes beside its model: three processes that import Torch, and the cache.
_BYTES = 3.5 * 2**30
KEY = "the-key-of-the-engine"
BASE_NAME = "tiny/base"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.vllm)


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama of two layers as elsewhere, with heads of 64: vLLM has no attention for smaller ones on a CPU."""
    folder = tmp_path_factory.mktemp("tiny-base")
    embedded_tokenizer_files(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=128,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=2048,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=2,
        tie_word_embeddings=True,
    )
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    return folder


def _room_for(servers: int) -> None:
    if not (VLLM / "ready").exists():
        pytest.skip("vLLM is not installed: `make vllm` does")
    free = psutil.virtual_memory().available
    if free < servers * _BYTES:
        pytest.skip(f"{servers} servers of vLLM need {servers * _BYTES / 2**30:.0f} GiB, {free / 2**30:.0f} are free")


@pytest.fixture(scope="session")
def first(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[VllmEngine]:
    _room_for(1)
    engine = VllmEngine(tiny_base, tmp_path_factory.mktemp("vllm") / "first", base_name=BASE_NAME, key=KEY)
    try:
        engine.start()
        yield engine
    finally:
        engine.kill()


@pytest.fixture(scope="session")
def second(first: VllmEngine, tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[VllmEngine]:
    """Another one of the same kind."""
    _room_for(1)
    engine = VllmEngine(tiny_base, tmp_path_factory.mktemp("vllm") / "second", base_name=BASE_NAME, key=KEY)
    try:
        engine.start()
        yield engine
    finally:
        engine.kill()
