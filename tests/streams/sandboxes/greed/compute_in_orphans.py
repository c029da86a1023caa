"""Use a processor for 4 s in processes that each end soon and that fall to the root."""

import os
import time

for _ in range(10):
    if os.fork() == 0:
        if os.fork() == 0:
            end = time.process_time() + 0.4
            while time.process_time() < end:
                pass
        os._exit(0)
    os.wait()
    time.sleep(0.4)
time.sleep(1)
print("ESCAPED", flush=True)
