"""Memory that threads have given back, and the process has not."""

import ctypes

_M_ARENA_MAX = -8
_ARENAS = 2


def share_arenas() -> None:
    """Have threads share two arenas of glibc's malloc from now on; without glibc nothing changes.

    By default each of up to eight threads for each processor has one of its own, and keeps what it needed at most. An
    arena that a thread has already stays. See mallopt(3).
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_ARENA_MAX, _ARENAS)
