"""The gates of a trial, and what in their settings would keep any verdict from being one.

`domain.py` checks the settings before anything is trained, `trials.py` asks for the names.
"""

import math
from collections.abc import Iterator

from daemon.config import Settings
from evaluation.gates.collapse import Collapse
from evaluation.gates.golden import GOLDEN
from evaluation.gates.improvement import IMPROVEMENT
from evaluation.gates.memorisation import Memorisation
from evaluation.gates.no_forgetting import NO_FORGETTING
from evaluation.gates.recorded import RECORDED
from evaluation.gates.registry import load_gates
from evaluation.gates.sentinels import SENTINELS
from evaluation.gates.slices import SLICES
from ratchet_client.errors import ConfigurationError

# These play tasks, or judge what was played.
_IN_SANDBOXES = (IMPROVEMENT, SENTINELS, NO_FORGETTING, GOLDEN, SLICES)
# These judge what `improvement` played.
_AFTER_IMPROVEMENT = (SENTINELS, SLICES, Collapse.name)


def gate_names(settings: Settings) -> tuple[str, ...]:
    """The gates of a trial. Without a sandbox `recorded` stands for `improvement`, and those that play are left out."""
    gates = settings.gate.gates
    if settings.domain.environment:
        return gates
    others = tuple(name for name in gates if name not in (*_IN_SANDBOXES, RECORDED))
    return (RECORDED, *others)


def check_gates(settings: Settings) -> None:
    """Raise `ConfigurationError` for gates that are not installed, and for settings that contradict each other."""
    load_gates(settings.gate.gates, settings.gate)
    for wrong in contradictions(settings):
        raise ConfigurationError(wrong)


def contradictions(settings: Settings) -> Iterator[str]:
    """Settings with which a gate could never give a verdict, or would let everything pass; each with what to do."""
    gate, names = settings.gate, gate_names(settings)
    doubled = sorted({name for name in gate.gates if gate.gates.count(name) > 1})
    if doubled:
        yield f"gate.gates names {doubled[0]!r} twice, and its tasks would count twice: name it once"
    if settings.domain.environment:
        yield from _of_playing(settings)
    if RECORDED in names and gate.recorded.states < gate.recorded.min_tasks:
        yield (
            f"gate.recorded.states ({gate.recorded.states}) are fewer than gate.recorded.min_tasks "
            f"({gate.recorded.min_tasks}), so that it never has enough: raise the one or lower the other"
        )
    if Memorisation.name in names:
        most = math.log2(gate.memorisation.alternatives + 1)
        if gate.memorisation.max_exposure >= most:
            yield (
                f"gate.memorisation.max_exposure ({gate.memorisation.max_exposure:g} bits) is no bound: among "
                f"{gate.memorisation.alternatives} alternatives an exposure is {most:.2f} bits at most. Lower it, or "
                "raise gate.memorisation.alternatives"
            )
    for name in ("entropy_ratio", "length_ratio"):
        low, high = getattr(gate.collapse, name)
        if not 0 <= low < high:
            yield f"gate.collapse.{name} must be a lowest and a higher highest ratio, and is {low:g} and {high:g}"
    canary = settings.serving.canary
    if canary.share > 0 and canary.promotes == "not_worse" and canary.not_worse_episodes > canary.most_episodes:
        yield (
            f"serving.canary.not_worse_episodes ({canary.not_worse_episodes}) are more than "
            f"serving.canary.most_episodes ({canary.most_episodes}), so that nothing is ever proved: lower the one or "
            "raise the other"
        )


def _of_playing(settings: Settings) -> Iterator[str]:
    gate = settings.gate
    if IMPROVEMENT not in gate.gates:
        yield (
            f"gate.gates lacks {IMPROVEMENT!r}, the only gate that proves a candidate better and spends alpha: without "
            "it, one that nothing speaks against would serve. Name it first"
        )
    else:
        before = gate.gates[: gate.gates.index(IMPROVEMENT)]
        for name in (each for each in before if each in _AFTER_IMPROVEMENT):
            yield f"gate.gates has {name!r} before {IMPROVEMENT!r}, whose episodes it judges: move it behind"
    if RECORDED in gate.gates and not settings.serving.canary.share > 0:
        yield (
            f"gate.gates has {RECORDED!r}, which is inconclusive without a canary: set serving.canary.share, or leave "
            "it out"
        )
    if gate.golden.tasks and GOLDEN not in gate.gates:
        yield f"golden tasks are pinned, and gate.gates lacks {GOLDEN!r}, which plays them: add it"
    if gate.lists.selection_tasks < 2 * gate.min_tasks:
        yield (
            f"gate.lists.selection_tasks ({gate.lists.selection_tasks}) are less than twice gate.min_tasks "
            f"({gate.min_tasks}): a list that is half full of new tasks would give no verdict. Raise the one or lower "
            "the other"
        )
    if NO_FORGETTING in gate.gates and gate.no_forgetting.tasks < gate.no_forgetting.min_tasks:
        yield (
            f"gate.no_forgetting.tasks ({gate.no_forgetting.tasks}) are fewer than gate.no_forgetting.min_tasks "
            f"({gate.no_forgetting.min_tasks}), so that it never has enough: raise the one or lower the other"
        )
