"""What a Java virtual machine does: listen on loopback, in both versions of IP, and connect to it."""

import socket
import threading

for family, host in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::ffff:127.0.0.1"), (socket.AF_INET6, "::1")):
    server = socket.socket(family)
    server.bind((host, 0))
    server.listen()
    threading.Thread(target=lambda server: server.accept()[0].sendall(b"heard"), args=(server,), daemon=True).start()
    with socket.create_connection(server.getsockname()[:2], timeout=5) as connection:
        print("said", connection.recv(16).decode())
