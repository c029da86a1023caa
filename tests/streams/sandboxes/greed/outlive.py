"""Leave a process behind that has left its session and its parents, and that ignores every signal it can."""

import os
import signal
import sys
import time

for number in range(1, 32):
    if number not in (signal.SIGKILL, signal.SIGSTOP, signal.SIGCHLD):
        signal.signal(number, signal.SIG_IGN)
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        print("READY", flush=True)
        while True:
            time.sleep(1)
    os._exit(0)
os.wait()
if "stay" in sys.argv:
    time.sleep(60)
