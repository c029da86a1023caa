"""Take priority away from a process outside."""

import json
import os
import sys

outside = json.loads(sys.argv[1])
os.setpriority(os.PRIO_PROCESS, outside["victim"], 5)
print("ESCAPED")
