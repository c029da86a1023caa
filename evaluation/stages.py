"""The stages of the gate `improvement`, planned before it plays: which units, by which rule, with what power."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from evaluation.power import ASSUMED, Expected, power
from evaluation.sequential import Rule
from evaluation.settings import GateSettings
from evaluation.units import Unit, is_graded

# A gate with less power than this says so, and looks for a better plan.
ENOUGH_POWER = 0.5
# A screening is passed at once on evidence of this level: what it lets through is proved on other tasks.
_PASSED_AT_ONCE = 0.05


class StageName(StrEnum):
    """The stages there are. Only `list` and `confirmation` promote; what passes the `screening` is then confirmed."""

    LIST = "list"
    SCREENING = "screening"
    CONFIRMATION = "confirmation"


@dataclass(frozen=True, slots=True)
class Stage:
    """Units in the order in which they are played, the rule that they are judged by, and the power that it has."""

    name: StageName
    units: tuple[Unit, ...]
    rule: Rule
    power: float


@dataclass(frozen=True, slots=True)
class Plan:
    """Stages that are played one after the other, as long as each finds the candidate better.

    `power` is the probability that all do if the candidate's success is higher by `gain`.
    """

    stages: tuple[Stage, ...]
    gain: float

    @property
    def power(self) -> float:
        product = 1.0
        for stage in self.stages:
            product *= stage.power
        return product


def planned(
    selection: Sequence[Unit],
    confirmation: Sequence[Unit],
    alpha: float,
    settings: GateSettings,
    *,
    is_fresh: bool = True,
    expected: Expected = ASSUMED,
) -> Plan:
    """The plan of a gate on units in their order. `is_fresh` says that no gate has played `selection` before.

    A fresh list that is long enough proves by itself. A used one, and one too short, where that gives more power, only
    screens: then `confirmation` proves, and `alpha` is spent there.
    """
    direct = _stage(StageName.LIST, selection, alpha, settings, expected)
    alone = Plan((direct,), settings.gain)
    if not confirmation or (is_fresh and direct.power >= ENOUGH_POWER):
        return alone
    screening = _stage(StageName.SCREENING, selection, alpha, settings, expected)
    both = Plan((screening, _stage(StageName.CONFIRMATION, confirmation, alpha, settings, expected)), settings.gain)
    return alone if is_fresh and alone.power >= both.power else both


def _stage(name: StageName, units: Sequence[Unit], alpha: float, settings: GateSettings, expected: Expected) -> Stage:
    own = settings.improvement
    played = tuple(units[: own.max_tasks])
    graded = is_graded(played, own.measure)
    if name is not StageName.SCREENING:
        rule = Rule.spending(alpha, graded=graded, worse=own.reject_alpha, gain=settings.gain)
    elif graded:
        rule = Rule(better=own.screen, worse=own.reject_alpha, gain=settings.gain)
    else:
        rule = Rule(_PASSED_AT_ONCE, exact=own.screen, worse=own.reject_alpha, gain=settings.gain)
    return Stage(name, played, rule, power(rule, expected, settings.gain, len(played), own.block))
