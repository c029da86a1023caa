"""Delete a file outside, or move it away."""

import json
import os
import sys

outside = json.loads(sys.argv[1])
os.rename(outside["mutable"], outside["mutable"] + ".gone")
print("ESCAPED")
