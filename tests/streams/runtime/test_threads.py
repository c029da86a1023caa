"""Work in daemon threads: its result, its error, and an end that does not wait for it."""

import asyncio
import subprocess
import sys
import threading

import pytest

from ratchet_client.errors import BrokerError
from streams.runtime.threads import in_daemon_thread


async def test_results_and_errors_are_those_of_the_work() -> None:
    assert await in_daemon_thread(lambda: threading.current_thread() is not threading.main_thread())

    def fail() -> None:
        raise BrokerError("away")

    with pytest.raises(BrokerError, match="away"):
        await in_daemon_thread(fail)


async def test_who_is_cancelled_is_not_held_up_and_what_comes_later_is_dropped() -> None:
    release, over = threading.Event(), threading.Event()

    def work() -> None:
        release.wait()
        over.set()

    asked = asyncio.create_task(in_daemon_thread(work))
    await asyncio.sleep(0)
    asked.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asked
    release.set()
    await asyncio.to_thread(over.wait)


def test_neither_the_loop_nor_the_process_waits_for_the_work() -> None:
    program = """
import asyncio, time
from streams.runtime.threads import in_daemon_thread

async def main(seconds):
    asked = asyncio.create_task(in_daemon_thread(lambda: time.sleep(seconds)))
    await asyncio.sleep(0.1)
    asked.cancel()

asyncio.run(main(600))
asyncio.run(main(0.5))
time.sleep(1)
print("over")
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "over\n", "")
