"""Reach a server outside by its UNIX socket: by path, by abstract name, and by a datagram from a pair."""

import json
import socket
import sys

outside = json.loads(sys.argv[1])
for name in (outside["unix"], "\0" + outside["abstract"]):
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(name)
        print("ESCAPED", name)
    except OSError as error:
        print(name, error)
try:
    ours, theirs = socket.socketpair(type=socket.SOCK_DGRAM)
    ours.sendto(b"hello", outside["datagrams"])
    print("ESCAPED", outside["datagrams"])
except OSError as error:
    print(outside["datagrams"], error)
