"""What a canary decides, and after how many episodes, over simulated outcomes.

`python -m benchmarks.canary [--runs R] [--episodes N] [--json]` plays R canaries of N judged episodes at most for each
share of episodes, success of the champion and difference of the candidate, with the settings that Ratchet ships.
Everything is seeded by the number of the run. The last line of `--json` has the shares of wrong decisions.
"""

import argparse
import json
import random
from dataclasses import asdict, dataclass
from statistics import median

from evaluation.settings import CanarySettings
from evaluation.two_samples import BlockShape, TwoSamples

SHARES = (0.1, 0.5)
BASES = (0.25, 0.5)
DIFFERENCES = (-0.1, 0.05, 0.0)


@dataclass(frozen=True, slots=True)
class Row:
    """Canaries of one kind: how many were rolled back, promoted and neither, and the median episodes to a decision.

    `median_episodes` is over those that were decided, None where none was; `median_candidate` are the candidate's own.
    """

    share: float
    base: float
    difference: float
    runs: int
    rolled_back: int
    promoted: int
    undecided: int
    median_episodes: float | None
    median_candidate: float | None


def simulate(share: float, base: float, difference: float, runs: int, episodes: int) -> Row:
    """Canaries whose champion succeeds with `base`, the candidate with `base` + `difference`."""
    proof = CanarySettings().proof
    ends = [_canary(share, base, difference, seed, episodes, proof) for seed in range(runs)]
    decided = [end for end in ends if end[0]]
    return Row(
        share=share,
        base=base,
        difference=difference,
        runs=runs,
        rolled_back=sum(direction < 0 for direction, _, _ in ends),
        promoted=sum(direction > 0 for direction, _, _ in ends),
        undecided=runs - len(decided),
        median_episodes=median(count for _, count, _ in decided) if decided else None,
        median_candidate=median(own for _, _, own in decided) if decided else None,
    )


def _canary(
    share: float, base: float, difference: float, seed: int, episodes: int, proof: float
) -> tuple[int, int, int]:
    """The direction that was proved (0: none), after how many episodes, and how many of them were the candidate's."""
    draw, test, own = random.Random(seed), TwoSamples(BlockShape.of(share)), 0
    for number in range(1, episodes + 1):
        candidate = draw.random() < share
        own += candidate
        blocks = test.blocks
        test.add(candidate=candidate, success=draw.random() < base + difference * candidate)
        if test.blocks == blocks:
            continue
        if test.e_worse >= proof:
            return -1, number, own
        if test.e_better >= proof:
            return 1, number, own
    return 0, episodes, own


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--episodes", type=int, default=CanarySettings().most_episodes)
    parser.add_argument("--json", action="store_true", help="one JSON object on the last line")
    options = parser.parse_args()
    rows = []
    print("share  champion  difference  rolled back  promoted  undecided  episodes (median)  of the candidate")
    for share in SHARES:
        for base in BASES:
            for difference in DIFFERENCES:
                row = simulate(share, base, difference, options.runs, options.episodes)
                rows.append(row)
                print(
                    f"{share:5.0%}  {base:8.2f}  {difference:+10.2f}  {row.rolled_back:11}  {row.promoted:8}  "
                    f"{row.undecided:9}  {row.median_episodes!s:>17}  {row.median_candidate!s:>16}",
                    flush=True,
                )
    if options.json:
        print(
            json.dumps(
                {
                    "rows": [asdict(row) for row in rows],
                    "worse_promoted": max(row.promoted / row.runs for row in rows if row.difference < 0),
                    "better_rolled_back": max(row.rolled_back / row.runs for row in rows if row.difference > 0),
                    "equal_rolled_back": max(row.rolled_back / row.runs for row in rows if row.difference == 0),
                    "equal_promoted": max(row.promoted / row.runs for row in rows if row.difference == 0),
                }
            )
        )


if __name__ == "__main__":
    main()
