"""Let the world connect: listen on all addresses, with and without a bind."""

import socket
import sys

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
print("DONE", flush=True)
sys.stdin.readline()
