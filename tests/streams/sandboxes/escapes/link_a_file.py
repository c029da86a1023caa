"""Give a file outside a second name in home."""

import json
import os
import sys

outside = json.loads(sys.argv[1])
os.link(outside["secret"], outside["folder"] + "/second")
print("ESCAPED")
