"""The similarity hash of an episode."""

from collections.abc import Sequence

from streams.trust.rules import StoredStep
from streams.trust.simhash import simhash


def similarity_hash(steps: Sequence[StoredStep]) -> int:
    """The SimHash of what the episode says: those of near-duplicates differ in a few bits only."""
    said = [steps[0].messages[-1]]
    for step in steps:
        said += (step.action, *step.observation)
    return simhash("\n".join(text for message in said for text in message.texts()))
