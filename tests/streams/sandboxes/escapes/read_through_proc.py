"""Read a file outside through the root and the working folder of another process."""

import json
import os
import sys
from pathlib import Path

outside = json.loads(sys.argv[1])
for way in ("root", "cwd"):
    for process in (outside["victim"], outside["parent"], os.getppid(), 1):
        root = Path(f"/proc/{process}/{way}")
        try:
            print("ESCAPED", (root / outside["secret"].lstrip("/")).read_text())
        except OSError:
            continue
