"""Steps of several models at once, each on its share of the threads.

The products of a decoding step are too small to keep many cores busy: with two models at work, as in a gate that plays
a candidate against its champion, one core for each does more than both cores for one after the other.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, wait

import torch

from daemon.inference.runner import Runner


class Stepping:
    """Steps runners with `threads` threads of Torch in all. `close` ends its own threads, one for each runner at once.

    The thread that calls `step` must have `threads` threads of Torch itself: it computes where one runner is alone.
    """

    def __init__(self, threads: int) -> None:
        self._threads = threads
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="inference-step")

    def step(self, runners: Sequence[Runner]) -> None:
        """Do one forward pass of each runner. Raises what one of them raises, once all have ended."""
        if len(runners) == 1 or self._threads == 1:
            for runner in runners:
                runner.step()
            return
        share = max(1, self._threads // len(runners))
        passes = [self._pool.submit(_step, runner, share) for runner in runners]
        wait(passes)
        for each in passes:
            each.result()

    def close(self) -> None:
        self._pool.shutdown()


def _step(runner: Runner, threads: int) -> None:
    torch.set_num_threads(threads)  # OpenMP has this setting for each thread that computes
    runner.step()
