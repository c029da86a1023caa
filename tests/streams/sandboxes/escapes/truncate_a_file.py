"""Empty a file outside without opening it."""

import json
import os
import sys

outside = json.loads(sys.argv[1])
os.truncate(outside["mutable"], 0)
print("ESCAPED")
