"""Spans of findings in a text, and the merge of those that overlap."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple


class Span(NamedTuple):
    """A stretch of a text that must not be stored.

    `name` is a kind or a rule; `value` is what it says, written one way, so that two spellings of it are one value.
    """

    start: int
    end: int
    name: str
    value: str


def merge(text: str, spans: Sequence[Span]) -> list[Span]:
    """The spans in the order of the text, none overlapping another.

    Spans that overlap become one, named by the one that comes first in `spans`.
    """
    order = sorted(range(len(spans)), key=lambda index: spans[index].start)
    merged: list[Span] = []
    rank = 0
    for index in order:
        span = spans[index]
        if not merged or span.start >= merged[-1].end:
            merged.append(span)
            rank = index
            continue
        last = merged[-1]
        first, start, end = spans[min(rank, index)], last.start, max(last.end, span.end)
        rank = min(rank, index)
        whole = first.start == start and first.end == end
        merged[-1] = Span(start, end, first.name, first.value if whole else text[start:end])
    return merged


def subtract(text: str, spans: Iterable[Span], holes: Sequence[tuple[int, int]]) -> list[Span]:
    """The parts of the spans outside the holes; both are in the order of the text, without overlaps."""
    left: list[Span] = []
    first = 0
    for span in spans:
        while first < len(holes) and holes[first][1] <= span.start:
            first += 1
        start, index = span.start, first
        while index < len(holes) and holes[index][0] < span.end:
            if start < holes[index][0]:
                left.append(Span(start, holes[index][0], span.name, text[start : holes[index][0]]))
            start = max(start, holes[index][1])
            index += 1
        if start == span.start:
            left.append(span)
        elif start < span.end:
            left.append(Span(start, span.end, span.name, text[start : span.end]))
    return left
