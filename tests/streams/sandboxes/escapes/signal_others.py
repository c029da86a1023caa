"""Kill a process outside."""

import json
import os
import signal
import sys

outside = json.loads(sys.argv[1])
os.kill(outside["victim"], signal.SIGKILL)
print("ESCAPED")
