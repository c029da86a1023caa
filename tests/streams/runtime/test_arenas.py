"""Threads share arenas, as glibc itself tells."""

import platform
import subprocess
import sys

import pytest

ALLOCATED_BY_TWELVE = """
import ctypes, sys
from threading import Barrier, Thread
from streams.runtime.arenas import share_arenas

if sys.argv[1] == "shared":
    share_arenas()
together = Barrier(12)

def allocate():
    together.wait()
    kept = [bytes(1000 + size) for size in range(2000)]
    together.wait()

threads = [Thread(target=allocate) for _ in range(12)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
libc = ctypes.CDLL(None)
libc.malloc_info(0, ctypes.c_void_p.in_dll(libc, "stdout"))
libc.fflush(None)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is not glibc: it has no such arenas")
def test_threads_have_two_arenas_instead_of_one_each() -> None:
    def arenas(how: str) -> int:
        command = [sys.executable, "-c", ALLOCATED_BY_TWELVE, how]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.count("<heap nr=")

    assert arenas("shared") <= 2 < arenas("as they are")
