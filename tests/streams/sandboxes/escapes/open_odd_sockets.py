"""Open sockets of other kinds: raw packets, netlink, virtual machines, the kernel's cryptography."""

import socket

for family, kind in (
    (socket.AF_INET, socket.SOCK_RAW),
    (socket.AF_PACKET, socket.SOCK_RAW),
    (socket.AF_NETLINK, socket.SOCK_RAW),
    (socket.AF_VSOCK, socket.SOCK_STREAM),
    (socket.AF_ALG, socket.SOCK_SEQPACKET),
):
    try:
        socket.socket(family, kind, 1 if kind == socket.SOCK_RAW and family == socket.AF_INET else 0).close()
        print("ESCAPED", family, kind)
    except OSError as error:
        print(family, kind, error)
