"""Write 200 MiB into files of home that are deleted but open."""

import os
import time
from pathlib import Path

kept = []
for number in range(10):
    path = Path(os.environ["HOME"], str(number))
    file = path.open("wb")
    path.unlink()
    file.write(bytes(20 * 2**20))
    kept.append(file)
time.sleep(1)
print("ESCAPED", flush=True)
