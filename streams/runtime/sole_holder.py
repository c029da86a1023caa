"""A lock that one process has as long as it lives, and that says which one it is."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from ratchet_client.errors import RatchetError
from streams.runtime.json_lines import locked


@contextmanager
def sole_holder(path: Path, holder: str, refusal: Callable[[str], RatchetError]) -> Iterator[None]:
    """Hold the lock of the file, which then says who has it: `holder`. The kernel drops it however the process ends.

    Raises what `refusal` makes of the other's holder where another process has the lock.
    """
    with ExitStack() as stack:
        try:
            file = stack.enter_context(locked(path, wait=False))
        except BlockingIOError as error:
            raise refusal(path.read_text().strip() or "unknown") from error
        file.truncate(0)
        file.write(f"{holder}\n".encode())
        yield
