"""The selectors, which decide where branches are spent: one per file, each weighs the states of an episode, without
I/O.

To add one, write a class that satisfies `selector.Selector` in a file of its own, and list it in `SELECTORS` and in
`SelectorName` of `streams/branching/settings.py`.
"""

from streams.branching.selectors.curiosity import Curiosity
from streams.branching.selectors.novelty import Novelty
from streams.branching.selectors.selector import Selector
from streams.branching.selectors.uniform import Uniform

__all__ = ["SELECTORS", "Curiosity", "Novelty", "Selector", "Uniform"]

SELECTORS: dict[str, type[Selector]] = {selector.name: selector for selector in (Uniform, Novelty, Curiosity)}
