"""Trees of one update as one: what all of them begin with, such as a system prompt and tools, is computed once.

Tokens that count are never shared, so the loss and its gradient are those of the trees one by one, but for rounding.
"""

from collections.abc import Sequence

import torch

from learners.packed_tree import Part, Tree, predictors
from learners.tree_attention import Segment, tree_layout

# Sharing fewer tokens is not worth the memory that trees side by side need.
_FEWEST_SHARED = 64


def join_alike(trees: Sequence[Tree], most: int) -> list[Tree]:
    """Join those of the trees that begin alike, as far as no joined tree has more than `most` tokens."""
    groups: list[list[Tree]] = []
    for tree in trees:
        for group in groups:
            together = [*group, tree]
            shared = shared_tokens(together)
            length = sum(each.length for each in together) - shared * len(group)
            if shared >= _FEWEST_SHARED and length <= most:
                group.append(tree)
                break
        else:
            groups.append([tree])
    return [joined(group) for group in groups]


def shared_tokens(trees: Sequence[Tree]) -> int:
    """Return how many tokens all trees begin with before any that counts."""
    first, *others = (tree.ids[: tree.layout.reference] for tree in trees)
    limit = min(int(each.targets[0]) if len(each.targets) else each.length for each in trees)
    for other in others:
        limit = min(limit, len(first), len(other))
        differing = (first[:limit] != other[:limit]).nonzero()
        limit = int(differing[0, 0]) if len(differing) else limit
    return limit


def joined(trees: Sequence[Tree]) -> Tree:
    """One tree of all of `trees`, which are its `parts`. A single one is returned as it is."""
    if len(trees) == 1:
        return trees[0]
    shared = shared_tokens(trees)
    segments = [Segment(0, shared, -1)]
    places = []
    for tree in trees:
        place = torch.cat([torch.arange(shared), torch.arange(tree.length - shared) + segments[-1].stop])
        places.append(place)
        segments += _moved(tree.layout.segments, place, shared)
    layout = tree_layout(segments)
    ids = torch.empty(layout.numbers.shape, dtype=torch.long)
    for tree, place in zip(trees, places, strict=True):
        ids[place] = tree.ids
    targets = torch.cat([place[tree.targets] for tree, place in zip(trees, places, strict=True)])
    return Tree(
        ids=ids,
        positions=layout.positions,
        layout=layout,
        targets=targets,
        predictors=torch.tensor(predictors(segments, targets.tolist()), dtype=torch.long),
        weights=torch.cat([tree.weights for tree in trees]),
        responses=torch.cat([tree.responses for tree in trees]),
        sampled=torch.cat([tree.sampled for tree in trees]),
        parts=tuple(Part(tree, place) for tree, place in zip(trees, places, strict=True)),
    )


def _moved(segments: Sequence[Segment], place: torch.Tensor, shared: int) -> list[Segment]:
    """A tree's segments at their places, less the tokens that are shared."""
    reference, *branches = segments
    kept = [Segment(shared, reference.stop, shared - 1)] if reference.stop > shared else []
    moved = []
    for segment in (*kept, *branches):
        start = int(place[segment.start])
        moved.append(Segment(start, start + segment.stop - segment.start, int(place[segment.parent_end])))
    return moved
