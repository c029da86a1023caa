"""Make 20,000 empty files in home."""

import os
import time

os.chdir(os.environ["HOME"])
for number in range(20_000):
    os.close(os.open(str(number), os.O_CREAT | os.O_WRONLY))
time.sleep(1)
print("ESCAPED", flush=True)
