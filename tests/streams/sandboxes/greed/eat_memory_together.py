"""Write to 400 MiB of memory, as eight processes that each stay small."""

import os
import time

for _ in range(7):
    if os.fork() == 0:
        break
eaten = bytearray(50 * 2**20)
eaten[::4096] = bytes(len(eaten) // 4096)
time.sleep(1)
print("ESCAPED", flush=True)
