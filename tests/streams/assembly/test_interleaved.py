"""A thousand conversations without ids, at once and in disorder, are told apart by what they say."""

import random
from collections import Counter
from pathlib import Path

import pytest

from streams.calls.records import CapturedCall
from tests.builders.captured import SYSTEM, Desk, call, episodes, said, user

CONVERSATIONS = 1000
OPENINGS = 40


def scripted(number: int, chance: random.Random) -> tuple[list[CapturedCall], list[list[str]]]:
    """The calls of one conversation, and the replies of the episodes that they must become, the main one first."""
    # A few openings and equal first replies are shared; from the second turn on each says something of its own.
    messages = [SYSTEM, user(f"opening {chance.randrange(OPENINGS)}")]
    principal = chance.choice([None, "ann", "bob"])
    calls, main, others = [], [], []
    for turn in range(chance.randint(2, 6)):
        reply = "Hello." if turn == 0 else f"reply {turn} of {number}"
        if turn and chance.random() < 0.15:  # regenerated, or retried: the answer is another
            calls.append(call(messages, f"other {turn} of {number}", principal=principal))
            others.append([f"other {turn} of {number}"])
        calls.append(call(messages, reply, principal=principal))
        if turn and chance.random() < 0.1:  # sent again by a client that missed the answer, which is the same
            calls.append(call(messages, reply, principal=principal))
            others.append([reply])
        main.append(reply)
        messages = [*messages, said(reply), user(f"{number} says {turn}")]
    return calls, [main, *others]


@pytest.mark.nightly
def test_a_thousand_interleaved_conversations_without_ids_are_assembled_right(tmp_path: Path) -> None:
    chance = random.Random(12)
    scripts = [scripted(number, chance) for number in range(CONVERSATIONS)]
    waiting = [list(reversed(calls)) for calls, _ in scripts]
    desk = Desk(tmp_path)
    batch: list[CapturedCall] = []
    events = []
    while any(waiting):
        running = [calls for calls in waiting if calls][:200]
        batch.append(chance.choice(running).pop())
        if len(batch) == 250 or not any(waiting):
            events += desk.take(*batch, wait=1)
            batch = []
    desk.restart()
    events += desk.take(wait=120)
    desk.close()
    expected = Counter(tuple(episode) for _, parts in scripts for episode in parts)
    found = Counter(tuple(replies) for replies in episodes(events).values())
    errors = (expected - found) + (found - expected)
    assert errors.total() == 0, f"{errors.total()} of {expected.total()} episodes are wrong: {errors.most_common(5)}"
