"""All sentinels look at what was played; the gate `sentinels` calls `watch`. A new sentinel is entered here."""

import math
from collections.abc import Callable
from typing import TypeAlias

from evaluation.sentinels.any_way import any_way
from evaluation.sentinels.conduct import conduct
from evaluation.sentinels.facts import Facts, Figure, Finding
from evaluation.sentinels.lengths import ratios, shorter
from evaluation.sentinels.replays import replays
from evaluation.sentinels.soundness import soundness
from evaluation.sentinels.templates import templates
from evaluation.sentinels.unseen import unseen
from evaluation.sentinels.unsolvable import unsolvable
from evaluation.sentinels.wasted import invalid, repeated
from evaluation.settings import SentinelSettings

Sentinel: TypeAlias = Callable[[Facts, SentinelSettings], Finding]

SENTINELS: tuple[Sentinel, ...] = (
    soundness,
    unsolvable,
    replays,
    shorter,
    invalid,
    ratios,
    repeated,
    templates,
    conduct,
    unseen,
    any_way,
)


def watch(facts: Facts, settings: SentinelSettings) -> Finding:
    """The findings of all sentinels as one. A figure that is not finite is None."""
    found = [sentinel(facts, settings) for sentinel in SENTINELS]
    figures: dict[str, Figure] = {}
    for finding in found:
        figures |= {
            name: None if isinstance(figure, float) and not math.isfinite(figure) else figure
            for name, figure in finding.figures.items()
        }
    return Finding(figures, tuple(hit for finding in found for hit in finding.hits))
