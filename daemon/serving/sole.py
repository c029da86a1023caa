"""The lock that lets one serve role run on a home: two would each unload what the other has loaded."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from ratchet_client.errors import ConfigurationError
from streams.runtime.sole_holder import sole_holder

LOCK_FILE = "serve.lock"


@asynccontextmanager
async def sole_serve_role(home: Path) -> AsyncIterator[None]:
    """Keep other serve roles from `home` meanwhile.

    Raises `ConfigurationError`, which names the other's process id, where one runs.
    """

    def refusal(other: str) -> ConfigurationError:
        return ConfigurationError(
            f"a serve role already runs on {home}, with the process id {other}: stop that one, or give this one "
            "a home of its own (RATCHET_HOME)"
        )

    with sole_holder(home / LOCK_FILE, str(os.getpid()), refusal):
        yield
