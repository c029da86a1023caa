"""Closed lists of the reasons for which episodes are not learned from, for labels of metrics.

The store keeps reasons as sentences, some of them the producers' own, so that their number has no bound.
"""

from collections import Counter
from collections.abc import Mapping, Sequence

from streams.branch_events import NO_SANDBOX
from streams.store.queries.episodes import ENDED_WITHOUT, LATER_STEPS, NO_OUTCOME
from streams.trust.rules import DISAGREEING, FAILED, NO_STEPS, ONLY_MODELS, WAITING

OTHER = "other"

Kinds = Sequence[tuple[str, str]]
"""Pairs of a label and a text: the first whose text is in the reason is taken."""

EPISODE_REASONS: Kinds = (
    ("no_outcome", NO_OUTCOME),
    ("no_outcome", ENDED_WITHOUT),
    ("later_steps", LATER_STEPS),
    ("later_steps", WAITING),
    ("no_steps", NO_STEPS),
    ("disagreeing", DISAGREEING),
    ("failed", FAILED),
    ("only_models", ONLY_MODELS),
    ("revoked", "revoked consent"),
    ("held_out", "its task is kept for gates"),
    ("step_missing", "a step is missing"),
    ("several_principals", "of several principals"),
    ("several_tasks", "of several tasks"),
    ("rewritten", "not an append-only conversation"),
    ("contradictory", "two events say different things"),
    ("quota", "quota"),
    ("flood", "flood"),
    ("injection", "injection"),
    ("unreadable_parts", "what a text model cannot read"),
    ("tool_calls", "tool"),
    ("content_missing", "content"),
    ("content_missing", "not captured"),
)

DROP_REASONS: Kinds = (
    ("no_sandbox", NO_SANDBOX),
    ("diverged", "something else than was recorded"),
    ("diverged", "is not the one that was walked through"),
    ("timeout", "took longer"),
    ("timeout", "took too long"),
    ("sandbox_died", "was killed"),
    ("sandbox_died", "died"),
    ("sandbox_died", "is gone"),
    ("not_redactable", "cannot be redacted"),
    ("not_replayable", "brings no state back"),
)


def labels(kinds: Kinds) -> tuple[str, ...]:
    """All labels that `kind_of` gives with these pairs."""
    return (*dict.fromkeys(label for label, _ in kinds), OTHER)


def kind_of(reason: str, kinds: Kinds) -> str:
    """The label of a reason, empty for an empty one.

    >>> kind_of("quota: 200 episodes of the principal within 24:00:00", EPISODE_REASONS)
    'quota'
    >>> kind_of("the reviewer was tired", EPISODE_REASONS)
    'other'
    """
    if not reason:
        return ""
    return next((label for label, text in kinds if text in reason), OTHER)


def by_kind(reasons: Mapping[str, int], kinds: Kinds) -> dict[str, int]:
    """Counts by reason as counts by label.

    >>> by_kind({"flood: 3 episodes": 2, "flood: 5 episodes": 1, "": 7}, EPISODE_REASONS)
    {'flood': 3, '': 7}
    """
    counts: Counter[str] = Counter()
    for reason, count in reasons.items():
        counts[kind_of(reason, kinds)] += count
    return dict(counts)
