"""TCP between the processes of one sandbox where it has no network of its own. Used by the supervisor.

The kernel stops each `bind`, `connect` and `listen` of the sandbox and asks here. The call is then made here, on a copy
of the socket and with an address that the sandbox can no longer change (seccomp_unotify(2) says why it must be so).
Allowed is listening on loopback, and connecting to what this very sandbox listens on.
"""

import ctypes
import errno
import fcntl
import ipaddress
import os
import re
import socket
import struct
from contextlib import suppress
from typing import TypeAlias

_RECEIVE, _SEND, _IS_VALID = 0xC0502100, 0xC0182101, 0x40082102  # ioctls of linux/seccomp.h
_QUESTION = struct.Struct("=QIIiIQ6Q")
_ANSWER = struct.Struct("=QqiI")
_PIDFD_GETFD = 438  # of every architecture
_LONGEST_ADDRESS = 128
# Below lie the ports that services have and that a sandbox could take before one starts.
_FIRST_PORT = 32768
_LISTEN = "0A"  # of the kernel's states of TCP
_Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address

_libc = ctypes.CDLL(None, use_errno=True)


class Loopback:
    """Answers on the file `listener`, which loading the filter gave. `numbers` are those of the calls by name."""

    def __init__(self, listener: int, numbers: dict[str, int]) -> None:
        self._listener = listener
        self._names = {number: name for name, number in numbers.items()}
        self._sockets: set[int] = set()

    def answer(self) -> None:
        """Answer the question that waits. One whose process has died meanwhile needs no answer."""
        question = bytearray(_QUESTION.size)
        try:
            fcntl.ioctl(self._listener, _RECEIVE, question)
        except OSError:
            return
        number, thread, _, call, _, _, *arguments = _QUESTION.unpack(question)
        error = 0
        try:
            self._act(number, thread, self._names[call], arguments)
        except OSError as refused:
            error = refused.errno or errno.EACCES
        try:
            fcntl.ioctl(self._listener, _SEND, _ANSWER.pack(number, 0, -error, 0))
        except OSError:
            return

    def _act(self, question: int, thread: int, call: str, arguments: list[int]) -> None:
        raw = _memory(thread, arguments[1], min(arguments[2], _LONGEST_ADDRESS)) if call != "listen" else b""
        copy = socket.socket(fileno=_socket(thread, arguments[0]))
        with copy:
            # Only now is it certain that what was read is the asking thread's, and not of a later one of its number.
            fcntl.ioctl(self._listener, _IS_VALID, struct.pack("=Q", question))
            if copy.family not in (socket.AF_INET, socket.AF_INET6):
                raise PermissionError(errno.EACCES, "not a socket of TCP")
            if call == "listen":
                _on_loopback(copy.getsockname())
                copy.listen(arguments[1])
                self._sockets.add(os.fstat(copy.fileno()).st_ino)
                return
            host, port = address = _on_loopback(_parse(raw))
            if call == "bind" and (port == 0 or port >= _FIRST_PORT):
                copy.bind(address)
            elif call == "connect" and self._listens_on(host, port):
                copy.connect(address)
            else:
                raise PermissionError(errno.EACCES, f"the port {port} of {host} is not the sandbox's")

    def _listens_on(self, host: str, port: int) -> bool:
        """Return whether the socket that listens on this very address now is one of the sandbox's."""
        listening = _listening()
        self._sockets &= set(listening.values())
        return listening.get((_inner(host), port)) in self._sockets


def _listening() -> dict[tuple[_Address, int], int]:
    """The inode of the socket that listens, by its address and port (proc_net(5))."""
    found: dict[tuple[_Address, int], int] = {}
    for name in ("tcp", "tcp6"):
        with suppress(FileNotFoundError), open(f"/proc/net/{name}") as table:
            for fields in map(str.split, table):
                if fields[3] == _LISTEN:
                    host, port = fields[1].split(":")
                    words = (int(host[start : start + 8], 16) for start in range(0, len(host), 8))
                    packed = b"".join(struct.pack("=I", word) for word in words)
                    found[_inner(str(ipaddress.ip_address(packed))), int(port, 16)] = int(fields[9])
    return found


def _inner(host: str) -> _Address:
    """The address, of version 4 where it is one in the spelling of version 6."""
    ip = ipaddress.ip_address(host)
    return ip.ipv4_mapped or ip if isinstance(ip, ipaddress.IPv6Address) else ip


def _parse(raw: bytes) -> tuple[str, int]:
    (family,) = struct.unpack_from("=H", raw) if len(raw) >= 8 else (socket.AF_UNSPEC,)
    if family == socket.AF_INET:
        (port,), packed = struct.unpack_from("!H", raw, 2), raw[4:8]
    elif family == socket.AF_INET6 and len(raw) >= 24:
        (port,), packed = struct.unpack_from("!H", raw, 2), raw[8:24]
    else:
        raise PermissionError(errno.EACCES, "not an address of TCP")
    return str(ipaddress.ip_address(packed)), port


def _on_loopback(address: tuple[str, int]) -> tuple[str, int]:
    if not _inner(address[0]).is_loopback:
        raise PermissionError(errno.EACCES, f"{address[0]} is not loopback")
    return address[0], address[1]


def _memory(thread: int, address: int, length: int) -> bytes:
    file = os.open(f"/proc/{thread}/mem", os.O_RDONLY)
    try:
        return os.pread(file, length, address)
    finally:
        os.close(file)


def _socket(thread: int, fd: int) -> int:
    """A copy of the open file `fd` of the process that `thread` is of."""
    with open(f"/proc/{thread}/status") as status:
        group = re.search(r"^Tgid:\s*(\d+)", status.read(), re.MULTILINE)
    if group is None:
        raise ProcessLookupError(errno.ESRCH, f"no thread {thread}")
    process = os.pidfd_open(int(group[1]))
    try:
        copy: int = _libc.syscall(_PIDFD_GETFD, process, fd, 0)
    finally:
        os.close(process)
    if copy < 0:
        raise OSError(ctypes.get_errno(), f"pidfd_getfd({fd})")
    return copy
