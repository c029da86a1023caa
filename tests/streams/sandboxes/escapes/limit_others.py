"""Take the processor time away from a process outside."""

import json
import resource
import sys

outside = json.loads(sys.argv[1])
resource.prlimit(outside["victim"], resource.RLIMIT_CORE, (0, 0))
print("ESCAPED")
