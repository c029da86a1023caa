"""A verdict on its way to an outcome event: evaluations of OpenTelemetry and feedback become one. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from streams.assembly.chains import Place


@dataclass(frozen=True, slots=True)
class Verdict:
    """A statement about a call at a place, or of a unit as a whole, where `place` is None.

    `success` is None where the verdict says neither. `anywhere` says that a verdict on a place that is no call is one
    on the first episode of its trace.
    """

    place: Place | None
    event_id: str
    verifier: str
    success: bool | None
    score: float
    given_ns: int
    evidence: Mapping[str, Any] = field(default_factory=dict)
    signer: str | None = None
    anywhere: bool = False
