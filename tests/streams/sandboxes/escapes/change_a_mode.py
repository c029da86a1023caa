"""Make a file outside writable for everybody, and see that it is."""

import json
import os
import sys

outside = json.loads(sys.argv[1])
os.chmod(outside["mutable"], 0o666)
if os.stat(outside["mutable"]).st_mode & 0o777 == 0o666:
    print("ESCAPED")
