"""Mount a file system over home."""

import ctypes
import os

libc = ctypes.CDLL(None, use_errno=True)
if libc.mount(b"none", os.fsencode(os.environ["HOME"]), b"tmpfs", 0, None) == 0:
    libc.umount(os.fsencode(os.environ["HOME"]))
    print("ESCAPED")
else:
    print(os.strerror(ctypes.get_errno()))
