"""Writes `requirements-slim.lock`, the part of `requirements.lock` that an installation without the learner needs.

`python -m ops.slim_lock`, run by `make lock` and in an environment that has everything, whose metadata it reads.
"""

import re
import tomllib
from collections.abc import Iterable
from importlib.metadata import requires
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
LOCK = ROOT / "requirements.lock"
SLIM_LOCK = ROOT / "requirements-slim.lock"
_HEAD = """\
# The part of requirements.lock that the roles record, branch, assemble, otlp and serve need: what `dependencies` in
# pyproject.toml ask for, and no more. `make lock` writes this file. Installed with --no-deps.
"""


def closure(wanted: Iterable[str]) -> frozenset[str]:
    """Return the canonical names of these requirements and of all that they require on this machine.

    Raises `importlib.metadata.PackageNotFoundError` where one of them is not installed.
    """
    found: dict[str, frozenset[str]] = {}
    todo = [Requirement(text) for text in wanted]
    while todo:
        requirement = todo.pop()
        name, extras = canonicalize_name(requirement.name), frozenset(requirement.extras)
        if name in found and extras <= found[name]:
            continue
        found[name] = found.get(name, frozenset()) | extras
        of_it = (Requirement(text) for text in requires(name) or ())
        todo += [each for each in of_it if _is_wanted(each, found[name])]
    return frozenset(found)


def _is_wanted(requirement: Requirement, extras: frozenset[str]) -> bool:
    marker = requirement.marker
    return marker is None or any(marker.evaluate({"extra": extra}) for extra in extras | {""})


def pinned(lock: Path) -> dict[str, str]:
    """Return the lines `NAME==VERSION` of a lock file by canonical name."""
    lines = [line.strip() for line in lock.read_text().splitlines()]
    return {canonicalize_name(re.split("==| @ ", line)[0]): line for line in lines if line and not line.startswith("#")}


def slim_lock() -> str:
    """Return the content of the slim lock file. Raises `KeyError` for what the whole one lacks."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    everything = pinned(LOCK)
    return _HEAD + "".join(f"{everything[name]}\n" for name in sorted(closure(project["dependencies"])))


if __name__ == "__main__":
    SLIM_LOCK.write_text(slim_lock())
