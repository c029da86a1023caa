"""What the tests of the inference server share: a server in a thread of the test process, and an adapter."""

import contextlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from daemon.inference.engine import Engine
from daemon.inference.server import create_app
from daemon.inference.settings import InferenceSettings
from tests.recorded import RecordedGateway, recorded_gateway
from tests.served import served


@pytest.fixture(scope="session")
def tiny_adapter(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A LoRA adapter of the tiny base whose weights are large enough to change what is said."""
    torch.manual_seed(1)
    model = AutoModelForCausalLM.from_pretrained(tiny_base, dtype=torch.float32)
    adapted = get_peft_model(model, LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM"))
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    folder = tmp_path_factory.mktemp("tiny-adapter")
    adapted.save_pretrained(str(folder))
    return folder


@contextlib.contextmanager
def run_server(tiny_base: Path, **settings: Any) -> Iterator[str]:
    """A server in a thread of this process, on a free port of loopback; yields its address."""
    chosen = {"slots": 32, "max_length": 512, "threads": 1, "dtype": "float32", **settings}
    app = create_app(Engine(InferenceSettings(model=tiny_base, **chosen)))
    with served(app, timeout_graceful_shutdown=1) as address:
        yield address


@pytest.fixture(scope="module")
def server(tiny_base: Path, request: pytest.FixtureRequest) -> Iterator[str]:
    """The address of a server that all tests of a module share; the module may set `MAX_LENGTH`, in tokens."""
    with run_server(tiny_base, max_length=getattr(request.module, "MAX_LENGTH", 512)) as address:
        yield address


@pytest.fixture
def server_with(tiny_base: Path) -> Callable[..., AbstractContextManager[str]]:
    """Starts a server with settings of the test's own: `with server_with(slots=2) as address`."""
    return lambda **settings: run_server(tiny_base, **settings)


@pytest.fixture
def http(server: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server, timeout=60) as client:
        yield client


@pytest.fixture(scope="module")
def house(tiny_base: Path) -> Iterator[RecordedGateway]:
    """A gateway in front of an engine that all tests of a module share, and the record of its calls."""
    with run_server(tiny_base, max_length=2048) as engine, recorded_gateway(engine) as gateway:
        yield gateway
