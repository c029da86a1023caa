"""Write 200 MiB of files into home, a second after the start."""

import os
import time
from pathlib import Path

time.sleep(1)
for number in range(10):
    Path(os.environ["HOME"], str(number)).write_bytes(bytes(20 * 2**20))
time.sleep(1)
print("ESCAPED", flush=True)
