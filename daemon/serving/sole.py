"""The lock that lets one serve role run on a home: two would each unload what the other has loaded."""

import os
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path

from ratchet_client.errors import ConfigurationError
from streams.runtime.json_lines import locked

LOCK_FILE = "serve.lock"


@asynccontextmanager
async def sole_serve_role(home: Path) -> AsyncIterator[None]:
    """Keep other serve roles from `home` meanwhile. The kernel drops the lock of a process that ends in any way.

    Raises `ConfigurationError`, which names the other's process id, where one runs.
    """
    path = home / LOCK_FILE
    with ExitStack() as stack:
        try:
            file = stack.enter_context(locked(path, wait=False))
        except BlockingIOError as error:
            other = path.read_text().strip() or "unknown"
            raise ConfigurationError(
                f"a serve role already runs on {home}, with the process id {other}: stop that one, or give this one "
                "a home of its own (RATCHET_HOME)"
            ) from error
        file.truncate(0)
        file.write(f"{os.getpid()}\n".encode())
        yield
