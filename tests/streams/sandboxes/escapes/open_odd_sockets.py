"""Open sockets of other kinds: raw packets, other protocols, netlink, virtual machines, the kernel's cryptography."""

import socket

for family, kind, protocol in (
    (socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP),
    (socket.AF_INET, socket.SOCK_STREAM, 262),  # IPPROTO_MPTCP
    (socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_SCTP),
    (socket.AF_PACKET, socket.SOCK_RAW, 0),
    (socket.AF_NETLINK, socket.SOCK_RAW, 0),
    (socket.AF_VSOCK, socket.SOCK_STREAM, 0),
    (socket.AF_ALG, socket.SOCK_SEQPACKET, 0),
):
    try:
        socket.socket(family, kind, protocol).close()
        print("ESCAPED", family, kind, protocol)
    except OSError as error:
        print(family, kind, protocol, error)
