"""The stages of the gate `improvement`, planned before it plays: which units, by which rule, with what power.

A list that gates have played may be known to the trainer: what it shows is overstated. So proofs are on fresh tasks
as long as there are any, and where those are few, a used list decides whether they are spent.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from evaluation.power import ASSUMED, Expected, power
from evaluation.sequential import Numbers, Outcome, Rule, Tally, outcomes
from evaluation.settings import GateSettings
from evaluation.units import Unit, is_graded

# A gate with less power than this says so, and looks for a better plan.
ENOUGH_POWER = 0.5
# A screening is passed at once on evidence of this level: what it lets through is proved on other tasks.
_PASSED_AT_ONCE = 0.05


class StageName(StrEnum):
    """The stages there are. `used` is a list that gates have played; what passes the `screening` is to be confirmed."""

    FRESH = "fresh"
    USED = "used"
    SCREENING = "screening"
    CONFIRMATION = "confirmation"


@dataclass(frozen=True, slots=True)
class Stage:
    """Units in the order in which they are played, the rule that they are judged by, and the power that it has."""

    name: StageName
    units: tuple[Unit, ...]
    rule: Rule
    power: float

    def can_prove(self) -> bool:
        """Return whether a candidate that wins every unit is proved."""
        wins = len(self.units)
        return bool(wins) and outcomes(Tally.of_counts(wins, wins, 0), self.rule, is_last=True) == Outcome.BETTER


@dataclass(frozen=True, slots=True)
class Plan:
    """Stages that are played one after the other, as long as each finds the candidate better.

    `power` is the probability that all do if the candidate's success is higher by `gain`.
    """

    stages: tuple[Stage, ...]
    gain: float

    @property
    def power(self) -> float:
        return math.prod(stage.power for stage in self.stages)


def planned(
    selection: Sequence[Unit],
    fresh: Sequence[Unit],
    confirmation: Sequence[Unit],
    alpha: float,
    settings: GateSettings,
    expected: Expected = ASSUMED,
) -> Plan:
    """The plan of a gate on units in their order; `alpha` is spent in its last stage.

    `fresh` are those of `selection` that no gate has played, `confirmation` others that none has. Fresh units that are
    enough prove alone. Where they are few, that has the more power is chosen: the fresh ones alone, or a screening on
    the selection that spends `confirmation` only on what passes. A used list proves where nothing fresh could.
    """

    def plan(*stages: tuple[StageName, Sequence[Unit]]) -> Plan:
        return Plan(tuple(_stage(*stage, alpha, settings, expected) for stage in stages), settings.gain)

    alone = plan((StageName.FRESH, fresh))
    if alone.power >= ENOUGH_POWER:
        return alone
    if len(fresh) + len(confirmation) >= settings.improvement.max_tasks:
        return plan((StageName.FRESH, (*fresh, *confirmation)))
    confirmed = plan((StageName.SCREENING, selection), (StageName.CONFIRMATION, confirmation))
    options = [option for option in (alone, confirmed) if option.stages[-1].can_prove()]
    return max(options, key=lambda option: option.power, default=None) or plan((StageName.USED, selection))


def rule_of(name: StageName, alpha: float | Numbers, settings: GateSettings, *, graded: bool = False) -> Rule:
    """The rule of the stage of that name; `alpha`, which may be an array, is spent by all but a screening."""
    own = settings.improvement
    if name is not StageName.SCREENING:
        return Rule.spending(alpha, graded=graded, worse=own.reject_alpha, gain=settings.gain)
    if graded:
        return Rule(better=own.screen, worse=own.reject_alpha, gain=settings.gain)
    return Rule(better=_PASSED_AT_ONCE, exact=own.screen, worse=own.reject_alpha, gain=settings.gain)


def _stage(name: StageName, units: Sequence[Unit], alpha: float, settings: GateSettings, expected: Expected) -> Stage:
    own = settings.improvement
    played = tuple(units[: own.max_tasks])
    rule = rule_of(name, alpha, settings, graded=is_graded(played, own.measure))
    return Stage(name, played, rule, power(rule, expected, settings.gain, len(played), own.block))
