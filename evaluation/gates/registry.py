"""Finds the gates that are installed, by the entry-point group `ratchet.gates`."""

from collections.abc import Sequence
from importlib.metadata import entry_points

from evaluation.gates.gate import Gate
from evaluation.settings import GateSettings
from streams.errors import ConfigurationError

ENTRY_POINTS = "ratchet.gates"


def load_gates(names: Sequence[str], settings: GateSettings) -> tuple[Gate, ...]:
    """The gates of these names, in that order. Raises `ConfigurationError` for one that is not installed."""
    return tuple(_load(name, settings) for name in names)


def _load(name: str, settings: GateSettings) -> Gate:
    for entry in entry_points(group=ENTRY_POINTS, name=name):
        try:
            gate: Gate = entry.load()(settings)
        except Exception as error:
            raise ConfigurationError(
                f"the gate {name!r} cannot be made from {entry.value}: {type(error).__name__}: {error}"
            ) from error
        return gate
    known = ", ".join(sorted(entry_points(group=ENTRY_POINTS).names))
    raise ConfigurationError(
        f"gate.gates names {name!r}, which is not installed; known are: {known}. Install a package that registers it "
        f"under the entry-point group {ENTRY_POINTS}."
    )
