"""Let the world connect: listen on all addresses, with and without a bind."""

import json
import socket
import sys

outside = json.loads(sys.argv[1])
servers = []
for bound in (False, True):
    server = socket.socket()
    try:
        if bound:
            server.bind(("0.0.0.0", 0))
        server.listen()
        servers.append(server)
        print("PORT", server.getsockname()[1], flush=True)
    except OSError as error:
        print(error)
sys.stdin.readline()
