"""Become root of a new user namespace, by `unshare` and by `clone`."""

import ctypes
import os
import signal

CLONE_NEWUSER = 0x10000000
libc = ctypes.CDLL(None, use_errno=True)
child = libc.syscall(ctypes.c_long(56), ctypes.c_long(CLONE_NEWUSER | signal.SIGCHLD), None, None, None, None)
if child == 0:
    os._exit(0)
if child > 0 or libc.unshare(CLONE_NEWUSER) == 0:
    print("ESCAPED")
else:
    print(os.strerror(ctypes.get_errno()))
