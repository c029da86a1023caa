"""Which threads compute for the runners of an engine, and with how many each."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import cast

import pytest
import torch

from daemon.inference.engine import Engine
from daemon.inference.runner import Runner
from daemon.inference.settings import InferenceSettings
from daemon.inference.stepping import Stepping


class Noting:
    """In place of a runner: notes the thread that steps it, and how many Torch would compute with there."""

    def __init__(self, failure: Exception | None = None) -> None:
        self.threads: list[tuple[str, int]] = []
        self._failure = failure

    def step(self) -> bool:
        self.threads.append((threading.current_thread().name, torch.get_num_threads()))
        if self._failure is not None:
            raise self._failure
        return True


@pytest.fixture
def stepping() -> Iterator[Stepping]:
    stepping, threads = Stepping(4), torch.get_num_threads()
    yield stepping
    stepping.close()
    torch.set_num_threads(threads)


def step(stepping: Stepping, *runners: Noting) -> None:
    stepping.step([cast(Runner, runner) for runner in runners])


def test_one_runner_has_all_threads_and_several_have_shares(stepping: Stepping) -> None:
    first, second = Noting(), Noting()
    step(stepping, first)
    step(stepping, first, second)
    step(stepping, first)
    own = threading.current_thread().name
    assert first.threads == [(own, 4), (own, 2), (own, 4)]
    ((other, share),) = second.threads
    assert (other != own, share) == (True, 2)


@pytest.mark.parametrize("failing", [0, 1])
def test_all_runners_have_ended_when_one_has_failed(stepping: Stepping, failing: int) -> None:
    runners = [Noting(RuntimeError("out of memory") if place == failing else None) for place in range(2)]
    with pytest.raises(RuntimeError, match="out of memory"):
        step(stepping, *runners)
    assert [len(runner.threads) for runner in runners] == [1, 1]


def test_threads_that_load_weights_compute_alone_from_then_on(tiny_base: Path, tiny_adapter: Path) -> None:
    def left_with(load: Callable[[], None]) -> int:
        torch.set_num_threads(2)
        load()
        return torch.get_num_threads()

    engines: list[Engine] = []
    settings = InferenceSettings(model=tiny_base, threads=2, dtype="float32")
    with ThreadPoolExecutor(1) as another:
        assert another.submit(left_with, lambda: engines.append(Engine(settings))).result() == 1
        (engine,) = engines
        assert another.submit(left_with, lambda: engine.load_adapter("ratchet-1", tiny_adapter)).result() == 1
    torch.set_num_threads(1)  # also what threads begin with that have not computed yet
