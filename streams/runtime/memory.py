"""The memory that this process, and those that it starts, can still get: of the machine, and of its control groups."""

from collections.abc import Iterator
from pathlib import Path


def available_memory(root: Path = Path("/")) -> int | None:
    """The bytes that can be had without swapping; None where the kernel does not say.

    It is the least of what the machine has available and of what each control group, of version 1 or 2, leaves below
    its limit. Page cache that can be given back counts as available. `root` is where `proc` and `sys` are.
    """
    found = [*_of_machine(root), *_of_groups(root)]
    return max(0, min(found)) if found else None


def _of_machine(root: Path) -> Iterator[int]:
    for line in _lines(root / "proc/meminfo"):
        if line.startswith("MemAvailable:"):
            yield int(line.split()[1]) * 1024


def _of_groups(root: Path) -> Iterator[int]:
    mounted = root / "sys/fs/cgroup"
    for line in _lines(root / "proc/self/cgroup"):
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            yield from _below_limits(mounted, path, "memory.max", "memory.current", "inactive_file")
        elif "memory" in controllers.split(","):
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
            yield from _below_limits(mounted / "memory", path, *names)


def _below_limits(mounted: Path, path: str, limit: str, usage: str, cache: str) -> Iterator[int]:
    """Return what is left in a group and in those above it. In a container its own group is where they are mounted."""
    folder = mounted / path.lstrip("/")
    for group in (folder, *folder.parents):
        most, used = _number(group / limit), _number(group / usage)
        if most is not None and used is not None:
            stated = (line.split() for line in _lines(group / "memory.stat"))
            yield most - used + next((int(words[1]) for words in stated if words[0] == cache), 0)
        if group == mounted:
            return


def _number(path: Path) -> int | None:
    """The number in a file; None for the word `max`, and where there is no such file."""
    (line,) = _lines(path) or [""]
    return int(line) if line.isdigit() else None


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError:
        return []
