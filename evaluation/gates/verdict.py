"""The verdicts of gates, and how those of several gates become the verdict on a candidate.

A gate returns a `GateResult`; the report, the audit log, the metrics and `ratchet why` show them as they are.
"""

from collections.abc import Sequence
from enum import StrEnum

from pydantic import Field, FiniteFloat

from ratchet_client.settings import FrozenModel


class Verdict(StrEnum):
    """The consequence for the candidate: only after `PROMOTE` may it serve.

    `REJECT`: it is worse than what it is to replace. `INCONCLUSIVE`: what was asked for is not proved, or could not be
    measured. `HOLD`: something about it is to be looked at by a person, who approves or rejects it.
    """

    PROMOTE = "PROMOTE"
    REJECT = "REJECT"
    INCONCLUSIVE = "INCONCLUSIVE"
    HOLD = "HOLD"


# The first of these that any gate returned is the verdict on the candidate: a person is asked only about a candidate
# that has proved everything else.
_PRECEDENCE = (Verdict.REJECT, Verdict.INCONCLUSIVE, Verdict.HOLD, Verdict.PROMOTE)


class GateResult(FrozenModel):
    """The verdict of the gate named `gate`, its reason as a sentence, and the figures that it rests on by name."""

    gate: str = Field(min_length=1)
    verdict: Verdict
    reason: str = Field(min_length=1)
    figures: dict[str, bool | int | FiniteFloat | str | None] = Field(default={})


def combined(results: Sequence[GateResult]) -> tuple[Verdict, str]:
    """The verdict on a candidate, and the reasons of the gates that gave it.

    Without any result nothing was proved.

    >>> better = GateResult(gate="improvement", verdict=Verdict.PROMOTE, reason="It is better.")
    >>> odd = GateResult(gate="sentinels", verdict=Verdict.HOLD, reason="It repeats one action.")
    >>> combined([better, odd])
    (<Verdict.HOLD: 'HOLD'>, 'It repeats one action.')
    >>> combined([])[0]
    <Verdict.INCONCLUSIVE: 'INCONCLUSIVE'>
    """
    for verdict in _PRECEDENCE:
        reasons = [result.reason for result in results if result.verdict is verdict]
        if reasons:
            return verdict, " ".join(reasons)
    return Verdict.INCONCLUSIVE, "No gate was played, so nothing is proved."
