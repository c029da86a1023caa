"""Change a module that the next sandbox imports."""

import json
import sys
from pathlib import Path

outside = json.loads(sys.argv[1])
Path(outside["code"]).write_text("poisoned = True")
print("ESCAPED")
