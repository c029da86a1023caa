"""Read the memory of other processes."""

import json
import os
import sys
from pathlib import Path

outside = json.loads(sys.argv[1])
for process in (outside["victim"], outside["parent"], os.getppid()):
    if process == 0:
        continue
    try:
        first = Path(f"/proc/{process}/maps").read_text().partition("-")[0]
        with open(f"/proc/{process}/mem", "rb") as memory:
            memory.seek(int(first, 16))
            print("ESCAPED", process, memory.read(4))
    except OSError as error:
        print(process, error)
