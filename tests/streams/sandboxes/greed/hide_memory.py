"""Keep 200 MiB in files that exist in memory only and are in no process's own."""

import os
import time
from contextlib import suppress

kept = []
for number in range(10):
    file = -1
    with suppress(OSError):
        file = os.memfd_create("hidden")
    if file < 0:
        with suppress(OSError):
            file = os.open(f"/dev/shm/{number}", os.O_CREAT | os.O_RDWR)
            os.unlink(f"/dev/shm/{number}")
    os.write(file, bytes(20 * 2**20))
    kept.append(file)
time.sleep(1)
print("ESCAPED", flush=True)
