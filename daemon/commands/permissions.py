"""Checks what sandboxes may reach by the configuration, before any is started. The commands that read it call this."""

from pathlib import Path

from daemon.config import Settings
from ratchet_client.errors import ConfigurationError
from streams.environments.registry import needs_of, registered_environments
from streams.sandboxes.permissions import Permissions, first_refusal, network_refusal


def check_permissions(settings: Settings) -> None:
    """Check the paths that sandboxes may read, and the network of the environments that have settings.

    Raises `ConfigurationError` for a path that does not exist, or that would show a sandbox what is secret: the home
    folder with its tokens and keys, the store, or all of the user's own files. So it does for an environment that is
    not installed, and for one that needs a network which is not allowed.
    """
    branching = settings.branching
    _check_paths(settings, branching.readable, "branching.readable")
    for name, allowed in branching.permissions.items():
        if name not in registered_environments():
            raise ConfigurationError(
                f"[branching.permissions.{name}] is for an environment that is not installed: correct the name to one "
                f"of {', '.join(sorted(registered_environments()))}"
            )
        _check_paths(settings, allowed.readable, f"branching.permissions.{name}.readable")
    for name, own in branching.environments.items():
        if name not in registered_environments():
            continue  # where something asks for it, that says so
        needs = needs_of(name, own, Path.cwd())
        if refused := network_refusal(name, needs, branching.permissions.get(name, Permissions())):
            raise ConfigurationError(f"{refused}.")
        if refused := first_refusal(filter(Path.exists, needs.readable), _private(settings), within=False):
            raise ConfigurationError(f"[branching.environments.{name}] lets sandboxes read a path that {refused}.")


def _check_paths(settings: Settings, paths: tuple[Path, ...], key: str) -> None:
    own = {"the home folder of the user that runs Ratchet": Path.home()}
    refused = first_refusal(paths, _private(settings)) or first_refusal(paths, own, within=False)
    if refused:
        raise ConfigurationError(f"the path in {key} cannot be read by sandboxes: {refused}.")


def _private(settings: Settings) -> dict[str, Path]:
    lake = settings.store.lake.data
    return {
        "Ratchet's home folder, with its tokens and keys": settings.home,
        "the store": settings.store.path,
        **({} if lake is None else {"the lake": lake}),
        "the assembler's database": settings.assembly.path,
    }
