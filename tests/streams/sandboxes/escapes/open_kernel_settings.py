"""Open what sets how the kernel works for everybody."""

import os

for file in ("/proc/sys/kernel/core_pattern", "/proc/sysrq-trigger", "/dev/kmsg", "/dev/mem"):
    try:
        os.close(os.open(file, os.O_WRONLY))
        print("ESCAPED", file)
    except OSError as error:
        print(file, error)
