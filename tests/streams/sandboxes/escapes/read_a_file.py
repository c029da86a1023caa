"""Read a file outside that everybody may read."""

import json
import sys
from pathlib import Path

outside = json.loads(sys.argv[1])
print("ESCAPED", Path(outside["secret"]).read_text())
