"""Have the kernel send SIGKILL to a process outside when a pipe can be read."""

import fcntl
import json
import os
import signal
import sys
import time
from pathlib import Path

outside = json.loads(sys.argv[1])
read, write = os.pipe()
fcntl.fcntl(read, fcntl.F_SETOWN, outside["victim"])
fcntl.fcntl(read, fcntl.F_SETSIG, signal.SIGKILL)
fcntl.fcntl(read, fcntl.F_SETFL, fcntl.fcntl(read, fcntl.F_GETFL) | os.O_ASYNC)
os.write(write, b".")
time.sleep(0.1)
os.kill(outside["victim"], 0)
if Path(f"/proc/{outside['victim']}/stat").read_text().split()[2] == "Z":
    print("ESCAPED")
