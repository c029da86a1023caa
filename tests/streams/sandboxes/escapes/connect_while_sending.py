"""Reach a server outside by a message that also connects (TCP fast open)."""

import json
import socket
import sys

outside = json.loads(sys.argv[1])
with socket.socket() as connection:
    connection.sendto(b"hello", socket.MSG_FASTOPEN, ("127.0.0.1", outside["tcp"]))
print("ESCAPED")
