"""Take hold of another process as a debugger does."""

import ctypes
import json
import os
import sys

outside = json.loads(sys.argv[1])
PTRACE_SEIZE = 0x4206
libc = ctypes.CDLL(None, use_errno=True)
if libc.ptrace(PTRACE_SEIZE, outside["victim"], None, None) == 0:
    print("ESCAPED")
else:
    print(os.strerror(ctypes.get_errno()))
