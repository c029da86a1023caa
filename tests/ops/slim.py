"""An environment for processes that finds only what an installation from `requirements-slim.lock` would have."""

import json
import os
from collections.abc import Collection
from importlib.metadata import packages_distributions
from pathlib import Path

from packaging.utils import canonicalize_name

from ops.slim_lock import ROOT, SLIM_LOCK, pinned

_SITECUSTOMIZE = """\
from importlib.machinery import PathFinder

ABSENT = frozenset({absent})
find_spec = PathFinder.find_spec


def find_present(name, path=None, target=None):
    return None if name.partition(".")[0] in ABSENT else find_spec(name, path, target)


PathFinder.find_spec = find_present
"""


def absent_modules(besides: Collection[str] = ()) -> frozenset[str]:
    """Return the top-level modules of this environment that the slim one lacks, without those of `besides`."""
    kept = {*pinned(SLIM_LOCK), *besides, "ratchetd"}
    return frozenset(
        module
        for module, distributions in packages_distributions().items()
        if not kept & {canonicalize_name(name) for name in distributions}
    )


def slim_environment(folder: Path, besides: Collection[str] = ()) -> dict[str, str]:
    """Return variables with which Python imports nothing that the slim environment lacks; `folder` is an empty one."""
    absent = absent_modules(besides)
    (folder / "sitecustomize.py").write_text(_SITECUSTOMIZE.format(absent=json.dumps(sorted(absent))))
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("RATCHET_")}
    return inherited | {"PYTHONPATH": os.pathsep.join((str(folder), str(ROOT)))}
