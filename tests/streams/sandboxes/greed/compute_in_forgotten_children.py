"""Use a processor for 4 s in processes that each end soon and that nobody asks how they ended."""

import os
import signal
import time

signal.signal(signal.SIGCHLD, signal.SIG_IGN)
for _ in range(10):
    if os.fork() == 0:
        end = time.process_time() + 0.4
        while time.process_time() < end:
            pass
        os._exit(0)
    time.sleep(0.4)
time.sleep(1)
print("ESCAPED", flush=True)
