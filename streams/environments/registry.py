"""Finds the environments that are installed, by the entry-point group `ratchet.environments`."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path

from pydantic import BaseModel, JsonValue, ValidationError

from ratchet_client.errors import ConfigurationError
from streams.environments.environment import (
    WORKING_FOLDER,
    Configured,
    Environment,
    NamesHosts,
    NamesTasks,
    Network,
    ReadsFiles,
    SharesProcesses,
)
from streams.setting_errors import told

ENTRY_POINTS = "ratchet.environments"


def registered_environments() -> frozenset[str]:
    """The names of the environments that are installed as sandboxes."""
    return frozenset(entry_points(group=ENTRY_POINTS).names)


@cache
def load_environment(name: str) -> type[Environment]:
    """The class registered under `name`. Raises `ConfigurationError` when there is none."""
    for entry in entry_points(group=ENTRY_POINTS, name=name):
        try:
            loaded: type[Environment] = entry.load()
        except Exception as error:
            raise ConfigurationError(
                f"the environment {name!r} cannot be imported from {entry.value}: {type(error).__name__}: {error}. "
                "Install what it needs. A sandbox reads Python, its installed packages and the packages that register "
                "environments; name folders of other code, such as packages installed as editable, in "
                "branching.readable."
            ) from error
        return loaded
    raise ConfigurationError(
        f"no environment {name!r} is installed; known are: {', '.join(sorted(registered_environments()))}. "
        f"Install a package that registers it under the entry-point group {ENTRY_POINTS}."
    )


@dataclass(frozen=True, slots=True)
class Needs:
    """Requirements of an environment's sandbox, known before it is opened.

    `hosts` are the servers that it connects to, as `host:port`; empty where it does not say. Where `shares_processes`,
    episodes of one side of a gate share them: they are costly to start, or no action can change them.
    """

    network: Network
    readable: tuple[Path, ...]
    hosts: tuple[str, ...] = ()
    shares_processes: bool = False


def needs_of(name: str, settings: Mapping[str, JsonValue], working_folder: Path | None = None) -> Needs:
    """Return what sessions need of their sandbox. Raises `ConfigurationError` as `open_environment` does."""
    environment = load_environment(name)
    read = _settings(name, environment, settings, working_folder)
    offered = environment.capabilities
    return Needs(
        offered.network,
        read.readable() if isinstance(read, ReadsFiles) else (),
        read.hosts() if isinstance(read, NamesHosts) else (),
        offered.costly_start or (isinstance(read, SharesProcesses) and read.shares_processes()),
    )


def other_names_of(
    name: str, settings: Mapping[str, JsonValue], working_folder: Path | None = None
) -> Mapping[str, tuple[str, ...]]:
    """The other names of its tasks. Raises `ConfigurationError` as `open_environment` does, and `SandboxError`."""
    read = _settings(name, load_environment(name), settings, working_folder)
    return read.other_names() if isinstance(read, NamesTasks) else {}


def is_configured(name: str, settings: Mapping[str, JsonValue]) -> bool:
    """Return whether the environment is installed and its settings are complete, without opening it."""
    try:
        _settings(name, load_environment(name), settings, None)
    except ConfigurationError:
        return False
    return True


def open_environment(name: str, settings: Mapping[str, JsonValue], working_folder: Path | None = None) -> Environment:
    """A new session. Relative paths in `settings` start from `working_folder`, or where this process works.

    Raises `ConfigurationError` when the environment is not installed or its settings are wrong.
    """
    environment = load_environment(name)
    read = _settings(name, environment, settings, working_folder)
    return environment() if read is None else environment(read)  # type: ignore[call-arg]


def _settings(
    name: str, environment: type[Environment], settings: Mapping[str, JsonValue], working_folder: Path | None
) -> BaseModel | None:
    if isinstance(environment, Configured):
        context = {} if working_folder is None else {WORKING_FOLDER: working_folder}
        try:
            return environment.settings.model_validate(settings, context=context)
        except ValidationError as error:
            wrong = "; ".join(
                f"{'.'.join(map(str, each['loc'])) or 'all'}: {told(environment.settings, each)}"
                for each in error.errors()
            )
            raise ConfigurationError(
                f"the settings of the environment {name!r}, [branching.environments.{name}], are wrong: {wrong}. "
                "Correct them."
            ) from error
    if settings:
        raise ConfigurationError(f"the environment {name!r} has no settings. Remove them.")
    return None
