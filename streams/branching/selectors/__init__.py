"""Where branches are spent. One selector a file; each weighs the states of an episode, and none does any I/O."""

from streams.branching.selectors.curiosity import Curiosity
from streams.branching.selectors.novelty import Novelty
from streams.branching.selectors.selector import Selector
from streams.branching.selectors.uniform import Uniform

__all__ = ["SELECTORS", "Curiosity", "Novelty", "Selector", "Uniform"]

SELECTORS: dict[str, type[Selector]] = {selector.name: selector for selector in (Uniform, Novelty, Curiosity)}
