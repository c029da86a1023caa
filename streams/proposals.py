"""Which actions are tried at a state. Pure; branching gives it what the policy and the environment said."""

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from streams.events import Source


@dataclass(frozen=True, slots=True)
class Proposal:
    """An alternative that could be tried. Proposals of one `key` are the same action in other spellings.

    `promising`: the environment will likely make something of it.
    """

    action: str
    key: str
    source: Source
    promising: bool = True


def propose(
    sampled: Iterable[Proposal],
    fill: Sequence[Proposal],
    seen: set[str],
    most: int,
    errors: int,
    generator: random.Random,
) -> tuple[Proposal, ...]:
    """At most `most` different actions whose keys are not among `seen`; theirs are added to it.

    The policy's own come first. Of those that promise nothing at most `errors` are taken, because errors teach too.
    Random ones of `fill` take the places that are left.
    """
    chosen: list[Proposal] = []
    for proposal in sampled:
        if len(chosen) == most:
            break
        if proposal.key in seen or not (proposal.promising or errors):
            continue
        errors -= not proposal.promising
        seen.add(proposal.key)
        chosen.append(proposal)
    unseen = {proposal.key: proposal for proposal in fill if proposal.key not in seen}
    for proposal in generator.sample(list(unseen.values()), min(most - len(chosen), len(unseen))):
        seen.add(proposal.key)
        chosen.append(proposal)
    return tuple(chosen)
