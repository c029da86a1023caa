"""Start 200 processes, each of which stays."""

import os
import time

for _ in range(200):
    if os.fork() == 0:
        time.sleep(60)
time.sleep(1)
print("ESCAPED", flush=True)
