"""The paths that a sandbox may read: the system's programs, Python with its packages, Java. For both tiers."""

import sys
from collections.abc import Iterable, Iterator
from contextlib import suppress
from functools import cache
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path

from ratchet_client.errors import ConfigurationError
from streams.environments.environment import Network
from streams.runtime.java import java_executable

_SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64")
# What programs read to start. Debian's Java keeps its configuration in /etc/java-<version>.
_SETTINGS = ("ld.so.cache", "ld.so.conf", "ld.so.conf.d", "alternatives", "localtime", "java-*", "os-release")
_NAMES = ("hosts", "host.conf", "nsswitch.conf", "gai.conf", "services", "protocols")
_REMOTE = ("resolv.conf", "ssl", "pki", "ca-certificates", "ca-certificates.conf")


def system_paths(network: Network) -> tuple[Path, ...]:
    """The system's own files that a sandbox reads. It gets no passwords, accounts or secrets of services."""
    patterns = list(_SETTINGS)
    if network is not Network.NONE:
        patterns += _NAMES
    if network is Network.REMOTE:
        patterns += _REMOTE
    settings = (path for pattern in patterns for path in sorted(Path("/etc").glob(pattern)))
    return tuple(path for path in (*map(Path, _SYSTEM), *settings) if path.exists())


@cache
def code_paths() -> tuple[Path, ...]:
    """Python, its installed packages, Java, this package and the client, and those that register environments.

    All but the first two may be outside of Python's folders, packages because they are installed as editable. What
    environments need that is so too must be named where a sandbox is described.
    """
    environments = (entry.module.partition(".")[0] for entry in entry_points(group="ratchet.environments"))
    folders = [Path(sys.prefix), Path(sys.base_prefix), Path(sys.executable)]
    folders += [Path(entry) for entry in sys.path if entry.endswith("-packages")]
    for package in {"streams", "ratchet_client", *environments}:
        folders += _locations(package)
    with suppress(ConfigurationError):
        # Only some environments need Java; one that does says so itself.
        folders.append(java_executable().resolve().parents[1])
    return _outermost(path for folder in folders for path in (folder.absolute(), folder.resolve()) if path.exists())


def _locations(package: str) -> Iterator[Path]:
    spec = find_spec(package)
    if spec is not None and spec.submodule_search_locations:
        yield from map(Path, spec.submodule_search_locations)
    elif spec is not None and spec.origin:
        yield Path(spec.origin)


def _outermost(paths: Iterable[Path]) -> tuple[Path, ...]:
    """The paths without those that lie below another."""
    kept: list[Path] = []
    for path in sorted(set(paths)):
        if not any(path.is_relative_to(above) for above in kept):
            kept.append(path)
    return tuple(kept)
