"""Fork a copy that dies with this process, ask it something by a pipe, and kill it."""

import ctypes
import os
import signal

PR_SET_PDEATHSIG = 1
read, write = os.pipe()
copy = os.fork()
if copy == 0:
    if ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) == 0:
        os.write(write, b"well")
    signal.pause()
print(os.read(read, 4).decode(), flush=True)
os.kill(copy, signal.SIGKILL)
os.waitpid(copy, 0)
