"""Find files that the pool had open."""

import os
import stat

for fd in range(3, 256):
    try:
        kind = os.fstat(fd).st_mode
        print("ESCAPED", fd, stat.filemode(kind))
    except OSError:
        continue
