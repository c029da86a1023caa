"""Read the variables of other processes: the victim's, the pool's, and all that there are."""

import json
import os
import sys
from pathlib import Path

outside = json.loads(sys.argv[1])
for process in (outside["victim"], outside["parent"], os.getppid(), *range(1, 100)):
    try:
        if b"hunter2" in Path(f"/proc/{process}/environ").read_bytes():
            print("ESCAPED", process)
    except OSError:
        continue
