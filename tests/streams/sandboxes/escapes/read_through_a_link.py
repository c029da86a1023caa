"""Read a file outside through a link from home."""

import json
import os
import sys
from pathlib import Path

outside = json.loads(sys.argv[1])
link = Path(os.environ["HOME"], "link")
link.symlink_to(outside["secret"])
print("ESCAPED", link.read_text())
