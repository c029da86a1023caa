"""Write 200 MiB into home, so many folders down that no path leads there."""

import os
import time
from pathlib import Path

os.chdir(os.environ["HOME"])
for _ in range(1000):
    os.mkdir("down" * 10)
    os.chdir("down" * 10)
for number in range(10):
    Path(str(number)).write_bytes(bytes(20 * 2**20))
time.sleep(1)
print("ESCAPED", flush=True)
