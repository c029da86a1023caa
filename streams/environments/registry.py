"""Finds the environments that are installed, by the entry-point group `ratchet.environments`."""

from collections.abc import Mapping
from functools import cache
from importlib.metadata import entry_points

from pydantic import JsonValue, ValidationError

from streams.environments.environment import Configured, Environment
from streams.errors import ConfigurationError

ENTRY_POINTS = "ratchet.environments"


def registered_environments() -> frozenset[str]:
    """The names of the environments that are installed as sandboxes."""
    return frozenset(entry_points(group=ENTRY_POINTS).names)


@cache
def load_environment(name: str) -> type[Environment]:
    """The class registered under `name`. Raises `ConfigurationError` when there is none."""
    for entry in entry_points(group=ENTRY_POINTS, name=name):
        loaded: type[Environment] = entry.load()
        return loaded
    raise ConfigurationError(
        f"no environment {name!r} is installed; known are: {', '.join(sorted(registered_environments()))}. "
        f"Install a package that registers it under the entry-point group {ENTRY_POINTS}."
    )


def open_environment(name: str, settings: Mapping[str, JsonValue]) -> Environment:
    """A new session. Raises `ConfigurationError` when the environment is not installed or its settings are wrong."""
    environment = load_environment(name)
    if isinstance(environment, Configured):
        try:
            return environment(environment.settings.model_validate(settings))
        except ValidationError as error:
            raise ConfigurationError(f"the settings of the environment {name!r} are wrong: {error}") from error
    if settings:
        raise ConfigurationError(f"the environment {name!r} has no settings. Remove them.")
    return environment()
