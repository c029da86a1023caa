"""Simulation of the gate over many cycles: how often an installation declines, and a better candidate is proved.

`python -m benchmarks.gate_power [--runs N] [--cycles N] [--json]` simulates N installations of so many cycles each, by
the rules, the stages and the spending of the gate as it ships; only the playing is simulated. A trainer's candidate is
truly better or worse by as many points as its line says. Tasks are solved by chance: the champion by a share of
`--base`, with a correlation of 0.54 to the candidate's. `worse` is the share of installations that end truly below
their start.

Tasks come in four ways: `fresh`, 2,000 that no gate has played; `screened`, a list of 187 that stays, and 1,600 fresh
ones that confirm; `short`, such a list and nothing else, with `used_list = "PROMOTE"`; `variants`, 47 fresh families of
four variants, which are solved alike with a correlation of 0.9. On a list that stays, an adversarial trainer turns a
fifth of its failures into successes.
"""

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from evaluation.power import ASSUMED, paired_rates, play
from evaluation.sequential import Outcome, Tally
from evaluation.settings import GateSettings
from evaluation.spending import next_alpha
from evaluation.stages import StageName, rule_of

SEED = 20_261_128
GOOD = 0.05
LIST, CONFIRMING, FAMILIES, VARIANTS, ALIKE = 187, 1600, 47, 4, 0.9
LEAK = 0.2
SETTINGS = GateSettings()
Random = np.random.Generator
Gains = NDArray[np.float64]


class Trainer(NamedTuple):
    """The true gains of a trainer's next candidates, one a run, and the share of its failures on a list it hides."""

    name: str
    gains: Callable[[Random, int], Gains]
    leak: float = 0.0


TRAINERS = (
    Trainer("equal", lambda random, runs: np.zeros(runs)),
    Trainer("-0.5", lambda random, runs: np.full(runs, -0.005)),
    Trainer("-1", lambda random, runs: np.full(runs, -0.01)),
    Trainer("N(-1, 2)", lambda random, runs: random.normal(-0.01, 0.02, runs)),
    Trainer("adversarial", lambda random, runs: np.full(runs, -0.01), LEAK),
    Trainer("1 in 10 is +5", lambda random, runs: np.where(random.random(runs) < 0.1, GOOD, -0.01)),
)

# Ends below the start, power, mean tasks: of the simulation that the gate was designed by, and of the gate before.
DESIGN = {
    ("fresh", "-0.5"): "0, 0.91, 278 to 322",
    ("fresh", "-1"): "0.001, 0.91, 278 to 322",
    ("screened", "-0.5"): "0, 0.61, 231 to 297",
    ("screened", "-1"): "0, 0.61, 231 to 297",
    ("short", "-0.5"): "one list, unspent: 0.68, 0.13, 187",
    ("short", "-1"): "one list, unspent: 0.60, 0.13, 187",
    ("variants", "equal"): "counted one by one: 14% of gates",
}


@dataclass(frozen=True, slots=True)
class Series:
    """The result of many cycles of one trainer, over all runs; `power` is of its candidates of +5 points."""

    supply: str
    trainer: str
    worse: float
    promoted: float
    wrong: float
    rejected: float
    power: float | None
    tasks: float
    seconds: float


class Installations:
    """Runs of one trainer, side by side: their champions, what these solve on a list that stays, and spent alpha."""

    def __init__(self, supply: str, trainer: Trainer, runs: int, base: float, seed: int) -> None:
        self.supply, self.trainer, self.runs = supply, trainer, runs
        self.random = np.random.default_rng(seed)
        self.base = np.full(runs, base)
        self.truth = np.zeros(runs)
        self.solved = self.random.random((LIST, runs)) < base
        self.promotions: list[list[int]] = [[] for _ in range(runs)]
        self.spent = np.zeros(runs)
        self.gates = 0

    def cycle(self) -> tuple[Gains, NDArray[np.int64], NDArray[np.int64]]:
        """One gate in each run: the true gains of the candidates, the outcomes, and the units that were played."""
        gains = self.trainer.gains(self.random, self.runs)
        alpha = np.array([next_alpha(self.gates, *run) for run in zip(self.promotions, self.spent, strict=True)])
        self.spent += alpha
        self.gates += 1
        if has_list := self.supply in ("screened", "short"):
            candidate = self._on_the_list(gains)
            name = StageName.SCREENING if self.supply == "screened" else StageName.USED
            order = self.random.permuted(np.tile(np.arange(LIST)[:, None], self.runs), axis=0)
            results = np.take_along_axis(candidate.astype(float) - self.solved, order, axis=0)
            rule = rule_of(name, alpha, SETTINGS)
            outcome, played = play(lambda start, count: Tally.of(results[start : start + count]), rule, LIST)
            if name is StageName.SCREENING:
                passed = np.flatnonzero(outcome == Outcome.BETTER)
                outcome[passed], more = self._fresh(StageName.CONFIRMATION, gains, alpha, passed, CONFIRMING)
                played[passed] += more
        else:
            everyone = np.arange(self.runs)
            units = FAMILIES if self.supply == "variants" else SETTINGS.improvement.max_tasks
            outcome, played = self._fresh(StageName.FRESH, gains, alpha, everyone, units)
        is_promoted = outcome == Outcome.BETTER
        self.truth += np.where(is_promoted, gains, 0)
        if has_list:
            # The list stays, and so do the tasks on it: its champions are better at them than the first was.
            self.base = np.clip(self.base + np.where(is_promoted, gains, 0), 0.02, 0.98)
            self.solved = np.where(is_promoted, candidate, self.solved)
        for run in np.flatnonzero(is_promoted):
            self.promotions[run].append(self.gates)
        return gains, outcome, played

    def _on_the_list(self, gains: Gains) -> NDArray[np.bool_]:
        """The tasks of the list that each candidate solves, given those that its champion does."""
        win, loss = paired_rates(self.base, gains, ASSUMED.phi)
        keeps, learns = 1 - loss / self.base, win / (1 - self.base)
        solves: NDArray[np.bool_] = self.random.random(self.solved.shape) < np.where(self.solved, keeps, learns)
        solves |= self.random.random(self.solved.shape) < self.trainer.leak
        return solves

    def _fresh(self, name: StageName, gains: Gains, alpha: Gains, of: NDArray[Any], units: int) -> tuple[Any, Any]:
        if not len(of):
            return of, of
        win, loss = paired_rates(self.base[of], gains[of], ASSUMED.phi)

        def singles(_: int, count: int) -> Tally:
            wins = self.random.binomial(count, win)
            return Tally.of_counts(count, wins, self.random.binomial(count - wins, loss / (1 - win)))

        def families(_: int, count: int) -> Tally:
            def drawn(*shape: int) -> NDArray[np.float64]:
                chance = self.random.random((*shape, len(of)))
                return np.where(chance < win, 1.0, np.where(chance < win + loss, -1.0, 0.0))

            is_alike = self.random.random((VARIANTS, count, len(of))) < ALIKE
            return Tally.of(np.where(is_alike, drawn(count), drawn(VARIANTS, count)).mean(axis=0))

        graded = self.supply == "variants"
        rule = rule_of(name, alpha[of], SETTINGS, graded=graded)
        return play(families if graded else singles, rule, units, SETTINGS.improvement.block)


def series(
    supply: str, trainer: Trainer, runs: int, cycles: int, base: float = ASSUMED.base, seed: int = SEED
) -> Series:
    """Simulate `runs` installations of `cycles` cycles."""
    began, installations = time.perf_counter(), Installations(supply, trainer, runs, base, seed)
    done = [installations.cycle() for _ in range(cycles)]
    gains, outcomes, played = (np.stack(column) for column in zip(*done, strict=True))
    is_promoted, is_good = outcomes == Outcome.BETTER, gains >= GOOD
    return Series(
        supply=supply,
        trainer=trainer.name,
        # Sums of gains are not exact.
        worse=float(np.mean(installations.truth < -1e-9)),
        promoted=float(is_promoted.sum() / runs),
        wrong=float(np.mean(is_promoted[gains <= 0])) if np.any(gains <= 0) else 0.0,
        rejected=float(np.mean(outcomes == Outcome.WORSE)),
        power=float(np.mean(is_promoted[is_good])) if trainer.name == TRAINERS[-1].name else None,
        tasks=float(np.mean(played)) * (VARIANTS if supply == "variants" else 1),
        seconds=time.perf_counter() - began,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=500)
    parser.add_argument("--cycles", type=int, default=200)
    parser.add_argument("--base", type=float, default=ASSUMED.base, help="the champion's success (%(default)s)")
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--json", action="store_true", help="the last line is the result as JSON")
    options = parser.parse_args()
    print(f"{options.runs} runs of {options.cycles} cycles, base {options.base}, seed {options.seed}")
    print(
        "| tasks | trainer | worse | promotions a run | wrong a gate | rejected | power | tasks a gate | design | s |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|")
    every = []
    for supply in ("fresh", "screened", "short", "variants"):
        for trainer in TRAINERS:
            one = series(supply, trainer, options.runs, options.cycles, options.base, options.seed)
            every.append(one)
            power = "" if one.power is None else f"{one.power:.3f}"
            print(
                f"| {supply} | {one.trainer} | {one.worse:.3f} | {one.promoted:.2f} | {one.wrong:.5f} "
                f"| {one.rejected:.3f} | {power} | {one.tasks:.0f} | {DESIGN.get((supply, one.trainer), '')} "
                f"| {one.seconds:.0f} |",
                flush=True,
            )
    # With nothing fresh, nothing tells a trainer that knows the list from a better one: as shipped, a person decides.
    protected = [one for one in every if (one.supply, one.trainer) != ("short", "adversarial")]
    fresh = [one for one in every if one.supply == "fresh"]
    report = {
        "runs": options.runs,
        "cycles": options.cycles,
        "seed": options.seed,
        "worse_than_start": max(one.worse for one in protected),
        "power_plus_5": fresh[-1].power,
        "mean_tasks": round(max(one.tasks for one in fresh), 1),
        "known_list_without_fresh_tasks": max(one.worse for one in every if one.supply == "short"),
    }
    print(json.dumps(report) if options.json else "\n".join(f"{name:>32} {value}" for name, value in report.items()))


if __name__ == "__main__":
    main()
