"""Send a datagram outside, as a question to a name server would be."""

import json
import socket
import sys

outside = json.loads(sys.argv[1])
with socket.socket(type=socket.SOCK_DGRAM) as sender:
    for host in outside["hosts"]:
        sender.sendto(b"hello", (host, outside["udp"]))
        sender.settimeout(1)
        if sender.recv(16) == b"heard":
            print("ESCAPED", host)
