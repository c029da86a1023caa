"""A real vLLM of a tiny base model, and real adapters of it. `make test-vllm` runs what is here."""

from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.builders.base_models import write_tiny_llama
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
    return write_tiny_llama(tmp_path_factory.mktemp("tiny-base"), hidden=128, heads=2, key_heads=1)


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
