"""Make 20,000 empty files in home."""

import os
import time

os.chdir(os.environ["HOME"])
for number in range(20_000):
    os.close(os.open(str(number), os.O_CREAT | os.O_WRONLY))
time.sleep(4)  # a look at so many files takes a while on a busy machine, and the next one waits ten times that
print("ESCAPED", flush=True)
