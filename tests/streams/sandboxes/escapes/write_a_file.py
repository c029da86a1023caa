"""Write a file outside, in a folder that everybody may write."""

import json
import sys
from pathlib import Path

outside = json.loads(sys.argv[1])
Path(outside["folder"], "left").write_text("I was here")
print("ESCAPED")
