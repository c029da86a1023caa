"""Reach a server outside by TCP, by every address of the machine."""

import json
import socket
import sys

outside = json.loads(sys.argv[1])
for host in outside["hosts"]:
    try:
        with socket.create_connection((host, outside["tcp"]), timeout=2) as connection:
            connection.sendall(b"hello")
        print("ESCAPED", host)
    except OSError as error:
        print(host, error)
