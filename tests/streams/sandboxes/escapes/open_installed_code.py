"""Open the code of the worker and of Python for writing."""

import json
import os
import sys

outside = json.loads(sys.argv[1])
for file in (outside["streams"], os.__file__):
    try:
        os.close(os.open(file, os.O_WRONLY))
        print("ESCAPED", file)
    except OSError as error:
        print(file, error)
