"""Write to 400 MiB of memory that no process owns alone."""

import mmap
import time

eaten = mmap.mmap(-1, 400 * 2**20)
for page in range(0, len(eaten), 4096):
    eaten[page] = 1
time.sleep(1)
print("ESCAPED", flush=True)
