"""Start 200 threads."""

import threading
import time

for _ in range(200):
    threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
time.sleep(1)
print("ESCAPED", flush=True)
