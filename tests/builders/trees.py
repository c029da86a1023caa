"""Reads a packed tree."""

from learners.packing import Tree


def path(tree: Tree, index: int) -> list[int]:
    """The tokens that the token at `index` sees before it."""
    before = list(range(min(index, tree.layout.reference)))
    for group in tree.layout.groups:
        if group.start <= index < group.stop:
            seen = group.mask[index - group.start].nonzero()[:, 0].tolist()[:-1]
            columns = [*range(group.parent_end + 1), *range(group.start, group.stop)]
            before = [columns[column] for column in seen]
    return [int(tree.ids[at]) for at in before]
