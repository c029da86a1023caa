"""Write 200 MiB of files into home."""

import os
import time
from pathlib import Path

for number in range(10):
    Path(os.environ["HOME"], str(number)).write_bytes(bytes(20 * 2**20))
time.sleep(1)
print("ESCAPED", flush=True)
