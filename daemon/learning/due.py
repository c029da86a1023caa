"""Finds out whether there is enough news for a cycle, and of which kind. The learn role asks it."""

from dataclasses import dataclass
from enum import StrEnum

from daemon.learning.learned import Extent
from daemon.learning.loop import Loop
from streams.store.queries.learning import LEARNABLE_EPISODES, LEARNABLE_EPISODES_OF_GROUP
from streams.store.queries.practice import NEW_PRACTICE, NEW_PRACTICE_OF_GROUP
from streams.store.queries.retractions import RETRACTIONS_AFTER
from streams.store.queries.trust import WITHDRAWALS_AFTER


class Cause(StrEnum):
    """Causes of a cycle: new trusted episodes, a champion that saw what must be forgotten, or practice alone."""

    EPISODES = "episodes"
    REPLACEMENT = "replacement"
    PRACTICE = "practice"


@dataclass(frozen=True, slots=True)
class News:
    """The number of new trusted train episodes, and the cause of a cycle; None where none is due."""

    episodes: int
    cause: Cause | None


async def news_since(learned: Extent, loop: Loop) -> News:
    """The news since what was learned from. Of several causes the first counts.

    Raises `StoreError` when the store does not answer.
    """
    count = await loop.count_of_members(LEARNABLE_EPISODES, LEARNABLE_EPISODES_OF_GROUP, since=learned.as_of)
    new, cause = int(count["new"][0].as_py()), None
    if new >= loop.settings.learner.min_new_episodes:
        cause = Cause.EPISODES
    elif count["learnable"][0].as_py() and await _champion_is_to_be_replaced(learned, loop):
        cause = Cause.REPLACEMENT
    elif await _practised_enough(learned, loop):
        cause = Cause.PRACTICE
    return News(new, cause)


async def _champion_is_to_be_replaced(learned: Extent, loop: Loop) -> bool:
    """Return whether it saw what the newest snapshots do not leave out yet."""
    ids = sorted(loop.registry.marks().get(loop.registry.refs().champion, ()))
    if not ids:
        return False
    retracted = await loop.store.query(RETRACTIONS_AFTER, {"sequence": learned.retracted_as_of, "event_ids": ids})
    withdrawn = await loop.store.query(WITHDRAWALS_AFTER, {"sequence": learned.as_of, "withdrawal_ids": ids})
    return bool(retracted["count"][0].as_py() or withdrawn["count"][0].as_py())


async def _practised_enough(learned: Extent, loop: Loop) -> bool:
    """Return whether practice alone is worth a cycle."""
    practice = loop.settings.learner.practice
    if not practice.enabled:
        return False
    count = await loop.practice_of_members(NEW_PRACTICE, NEW_PRACTICE_OF_GROUP, since=learned.as_of)
    return int(count["successes"][0].as_py()) >= practice.min_new_episodes
