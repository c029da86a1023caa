"""Finds the gates that are installed, by the entry-point group `ratchet.gates`."""

from collections.abc import Sequence
from importlib.metadata import entry_points

from evaluation.gates.gate import Gate
from evaluation.settings import GateSettings
from ratchet_client.errors import ConfigurationError

ENTRY_POINTS = "ratchet.gates"


def load_gates(names: Sequence[str], settings: GateSettings) -> tuple[Gate, ...]:
    """The gates of these names, in that order.

    Raises `ConfigurationError` for one that is not installed, that several packages bring, or that is no gate.
    """
    return tuple(_load(name, settings) for name in names)


def _load(name: str, settings: GateSettings) -> Gate:
    found = {entry.value: entry for entry in entry_points(group=ENTRY_POINTS, name=name)}
    if not found:
        known = ", ".join(sorted(entry_points(group=ENTRY_POINTS).names))
        raise ConfigurationError(
            f"gate.gates names {name!r}, which is not installed; known are: {known}. Install a package that registers "
            f"it under the entry-point group {ENTRY_POINTS}."
        )
    if len(found) > 1:
        raise ConfigurationError(
            f"the gate {name!r} is ambiguous, for several packages bring one: {', '.join(sorted(found))}. Uninstall "
            "all but one."
        )
    (entry,) = found.values()
    try:
        gate: Gate = entry.load()(settings)
        is_gate = gate.name == name and isinstance(gate.plays, bool) and callable(gate.judge)
    except Exception as error:
        raise ConfigurationError(
            f"the gate {name!r} cannot be made from {entry.value}: {type(error).__name__}: {error}"
        ) from error
    if not is_gate:
        raise ConfigurationError(
            f"{entry.value}, which is registered as the gate {name!r}, is none: it needs that `name`, `plays` as true "
            "or false, and a method `judge`."
        )
    return gate
