"""Write to 400 MiB of memory."""

import time

eaten = bytearray(400 * 2**20)
eaten[::4096] = bytes(len(eaten) // 4096)
print("ESCAPED", flush=True)
time.sleep(1)
