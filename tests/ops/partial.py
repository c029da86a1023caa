"""An environment for processes that finds only what an installation from a partial lock file would have."""

import json
import os
from collections.abc import Collection
from importlib.metadata import packages_distributions
from pathlib import Path

from packaging.utils import canonicalize_name

from ops.partial_locks import CLIENT, ROOT, PartialLock, pinned

_SITECUSTOMIZE = """\
from importlib.machinery import PathFinder

ABSENT = frozenset({absent})
find_spec = PathFinder.find_spec


def find_present(name, path=None, target=None):
    return None if name.partition(".")[0] in ABSENT else find_spec(name, path, target)


PathFinder.find_spec = find_present
"""


def absent_modules(lock: PartialLock, besides: Collection[str] = ()) -> frozenset[str]:
    """Return the top-level modules of this environment that `lock` lacks, without those of `besides`."""
    kept = {*pinned(lock.path), *besides, "ratchetd", CLIENT}
    return frozenset(
        module
        for module, distributions in packages_distributions().items()
        if not kept & {canonicalize_name(name) for name in distributions}
    )


def partial_environment(lock: PartialLock, folder: Path, besides: Collection[str] = ()) -> dict[str, str]:
    """Return variables with which Python imports nothing that `lock` lacks; `folder` is an empty one."""
    absent = absent_modules(lock, besides)
    (folder / "sitecustomize.py").write_text(_SITECUSTOMIZE.format(absent=json.dumps(sorted(absent))))
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("RATCHET_")}
    return inherited | {"PYTHONPATH": os.pathsep.join((str(folder), str(ROOT)))}
