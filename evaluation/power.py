"""The power of a sequential comparison: the probability that it proves a gain that is there, with the tasks there are.

`improvement` states it before it plays; `benchmarks/gate_power.py` simulates whole series of gates by `play`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from evaluation.agreement import ASSUMED_PHI, Agreement
from evaluation.sequential import NOTHING, Outcome, Rule, Tally, outcomes
from streams.errors import GateError

BLOCK = 32
_RUNS = 2000
# Fewer tasks than these tell less than what is assumed.
_ENOUGH = 100
_EDGE = 0.02


def paired_rates(base: Any, gain: Any, phi: float) -> tuple[Any, Any]:
    """The shares of tasks that only the candidate and that only the champion solves; arguments may be arrays.

    The champion solves a share of `base`, the candidate `gain` more of them, and `phi` is the correlation of the two.
    """
    better = np.clip(base + gain, 0, 1)
    both = base * better + phi * np.sqrt(base * (1 - base) * better * (1 - better))
    both = np.clip(both, np.maximum(base + better - 1, 0), np.minimum(base, better))
    return better - both, base - both


@dataclass(frozen=True, slots=True)
class Expected:
    """Expectation of how two adapters play: the champion's success `base`, and the correlation `phi` of both's.

    `tasks` is the number that this was measured on, 0 where it is assumed. The assumptions are those of measured gates
    of the text game: 70 of 561 tasks were discordant.
    """

    base: float = 0.25
    phi: float = ASSUMED_PHI
    tasks: int = 0

    @classmethod
    def measured(cls, gates: Agreement) -> Self:
        """Measure `gates`, whose first plays are the champion's; the assumptions where they tell too little."""
        if gates.tasks < _ENOUGH:
            return cls()
        base = (gates.both + gates.first_only) / gates.tasks
        return cls(base=base, phi=ASSUMED_PHI if gates.phi is None else gates.phi, tasks=gates.tasks)

    def rates(self, gain: float) -> tuple[float, float]:
        """The shares of wins and losses if the candidate's success is higher by `gain`."""
        win, loss = paired_rates(min(max(self.base, _EDGE), 1 - _EDGE), gain, self.phi)
        return float(win), float(loss)


ASSUMED = Expected()


def play(
    draw: Callable[[int, int], Tally], rule: Rule, units: int, block: int = BLOCK
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Play gates at once, block by block: the outcome of each, and the units that it played.

    `draw` gets the units played before and the number of the block's, and returns the tally of the block, one entry a
    gate. A gate that has ended plays no more. Raises `GateError` without units.
    """
    if units == 0:
        raise GateError("a gate without tasks cannot be played: hold tasks out")
    tally, ended, played = NOTHING, np.array(Outcome.CONTINUE), np.array(0)
    for start in range(0, units, block):
        count = min(block, units - start)
        tally = tally + draw(start, count)
        now = outcomes(tally, rule, is_last=start + count == units)
        is_going = ended == Outcome.CONTINUE
        ended, played = np.where(is_going, now, ended), np.where(is_going, start + count, played)
        if np.all(ended != Outcome.CONTINUE):
            break
    return ended, played


def power(rule: Rule, expected: Expected, gain: float, units: int, block: int = BLOCK) -> float:
    """The probability that the test of `rule` proves a candidate that is better by `gain`, with so many units.

    Of 2,000 simulated gates with a fixed seed: right to about 0.01. No unit proves nothing.
    """
    if units == 0:
        return 0.0
    win, loss = expected.rates(gain)
    random = np.random.default_rng(0)

    def draw(_: int, count: int) -> Tally:
        wins = random.binomial(count, win, _RUNS)
        return Tally.of_counts(count, wins, random.binomial(count - wins, loss / (1 - win) if win < 1 else 0.0))

    ended, _ = play(draw, rule, units, block)
    return float(np.mean(ended == Outcome.BETTER))
