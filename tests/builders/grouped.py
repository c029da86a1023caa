"""The groups of a serve role without its parts."""

from typing import Any, cast

from daemon.registry.registry import Registry
from daemon.serving.alias import Alias
from daemon.serving.groups import ServedGroup, ServedGroups
from streams.trust.groups import DEFAULT_GROUP, AdapterSettings

NOTHING = cast(Any, None)


def alone(registry: Registry, alias: Alias) -> ServedGroups:
    """The default group alone, with a registry and an alias, and nothing that could change what serves."""
    group = ServedGroup(DEFAULT_GROUP, registry, alias, *(NOTHING for _ in range(6)))
    return ServedGroups(AdapterSettings(), {DEFAULT_GROUP: group})
