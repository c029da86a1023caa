"""What the operator lets the sandboxes of one environment reach: servers, and files to read.

The pool asks before it starts a sandbox; the commands that check a configuration ask before anything runs.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, TypeAlias

from pydantic import AfterValidator, Field

from ratchet_client.settings import FrozenModel
from streams.environments.environment import Network
from streams.environments.registry import Needs


def _absolute(path: Path) -> Path:
    if not path.is_absolute():
        raise ValueError(f"{path} is a relative path, and sandboxes work elsewhere: write the whole path")
    return path


HostAndPort: TypeAlias = Annotated[str, Field(pattern=r"^(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+):[0-9]{1,5}$")]


class Permissions(FrozenModel):
    """The permissions of the sandboxes of one environment."""

    network: tuple[HostAndPort, ...] = Field(
        default=(), description="Servers that it may connect to, each as host:port; none: it gets no network."
    )
    readable: tuple[Annotated[Path, AfterValidator(_absolute)], ...] = Field(
        default=(), description="Absolute paths of files and folders that it may read, such as a copy of a database."
    )


def network_refusal(environment: str, needs: Needs, allowed: Permissions) -> str:
    """The reason for which `environment` gets no sandbox with the network that it needs; empty where it gets one."""
    if needs.network is not Network.REMOTE:
        return ""
    wanted = [host for host in needs.hosts if host not in allowed.network]
    if allowed.network and not wanted:
        return ""
    example = ", ".join(f'"{host}"' for host in needs.hosts or ("host:port",))
    return (
        f"the environment {environment!r} needs the network, and {', '.join(wanted) or 'no server'} is "
        f"{'not ' if wanted else ''}allowed. If it may have it, set network = [{example}] in "
        f"[branching.permissions.{environment}]"
    )


def path_refusal(path: Path, private: Mapping[str, Path], *, within: bool = True) -> str:
    """The reason for which sandboxes must not read `path`; empty where they may.

    `private` has, by what they are called, the files and folders that no sandbox is to read. With `within`, nothing in
    such a folder may be read either.
    """
    if not path.exists():
        return "does not exist: correct it"
    seen = path.resolve()
    for name, secret in private.items():
        hidden = secret.resolve()
        if hidden.is_relative_to(seen):
            return f"holds {name}, {secret}: name something that does not"
        if within and seen.is_relative_to(hidden):
            return f"lies in {name}, {secret}: put a copy of it elsewhere"
    return ""


def first_refusal(paths: Iterable[Path], private: Mapping[str, Path], *, within: bool = True) -> str:
    """The first of `paths` that sandboxes must not read, and why; empty where they may read all."""
    refusals = ((path, path_refusal(path, private, within=within)) for path in paths)
    return next((f"{path} {reason}" for path, reason in refusals if reason), "")
