"""Listen on another loopback address with the port of a server outside, and reach the server by that port."""

import json
import socket
import sys
from contextlib import suppress

port = json.loads(sys.argv[1])["high"]
for family, host in ((socket.AF_INET, "127.0.0.2"), (socket.AF_INET6, "::1")):
    with socket.socket(family) as server:
        with suppress(OSError):
            server.bind((host, port))
            server.listen()
        for attempt in ("while it listens", "when it is closed"):
            with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=2):
                print("ESCAPED", host, attempt)
            server.close()
