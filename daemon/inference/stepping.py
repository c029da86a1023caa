"""Steps of several models at once, each on its share of the threads.

The products of a decoding step are too small to keep many cores busy: with two models at work, as in a gate that plays
a candidate against its champion, one core for each does more than both cores for one after the other.

libgomp adds up the threads of all teams of a process, each of which belongs to the thread that computes with it. Once
there are more than processors, threads of a team sleep at once where they would spin, and a step takes half as long
again. So nothing else of the engine's process may compute with more than one thread.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, wait

import torch

from daemon.inference.runner import Runner


class Stepping:
    """Steps runners with `threads` threads of Torch in all. `close` ends its own threads.

    One thread alone may call `step`: it computes for the first of the runners, threads of its own for the others.
    """

    def __init__(self, threads: int) -> None:
        self._threads = threads
        self._pool = ThreadPoolExecutor(max(1, threads - 1), thread_name_prefix="inference-step")

    def step(self, runners: Sequence[Runner]) -> None:
        """Do one forward pass of each runner. Raises what one of them raises, once all have ended."""
        if len(runners) == 1 or self._threads == 1:
            for runner in runners:
                _step(runner, self._threads)
            return
        share = max(1, self._threads // len(runners))
        passes = [self._pool.submit(_step, runner, share) for runner in runners[1:]]
        try:
            _step(runners[0], share)
        finally:
            wait(passes)
        for each in passes:
            each.result()

    def close(self) -> None:
        self._pool.shutdown()


def _step(runner: Runner, threads: int) -> None:
    torch.set_num_threads(threads)  # OpenMP has this setting for each thread that computes
    runner.step()
