"""Wins by identifiers that nothing in the conversation had told, such as an order's number that was never looked up.

A model that met a task in training may know its answer. An honest agent reads a number before it uses it, or computes
it: so the champion's successes say how many are usual.
"""

import re

from evaluation.rollouts import Pair, Rollout
from evaluation.sentinels.comparison import rate
from evaluation.sentinels.facts import Facts, Finding, odd_wins
from evaluation.settings import SentinelSettings

_MOSTLY = 0.5
_IDENTIFIER = re.compile(r"(?=\w*\d)\w{3,}")


def unseen(facts: Facts, settings: SentinelSettings) -> Finding:
    def knows(pair: Pair, rollout: Rollout) -> bool:
        return uses_unseen(rollout)

    share = rate((float(uses_unseen(pair.candidate)), 1.0) for pair in facts.wins)
    hits = []
    if facts.champion_is_measure(settings) or (share is not None and share > _MOSTLY):
        label, phrase = "Unseen identifiers", "use identifiers that nothing in the conversation had told"
        hits = odd_wins(facts, settings, label, phrase, knows, known_are_free=False)
    return Finding({"wins_by_unseen_identifiers": share}, tuple(hits))


def uses_unseen(rollout: Rollout) -> bool:
    """Return whether an action has an identifier, a word with a digit, that no message of others before it had.

    A conversation of actions alone does not tell.
    """
    if all(message.role == "assistant" for message in rollout.messages):
        return False
    seen = ""
    for message in rollout.messages:
        if message.role != "assistant":
            seen += "\n" + " ".join(message.texts()).casefold()
            continue
        said = [message.text, *(call.function.arguments for call in message.calls if call.function is not None)]
        if any(found not in seen for text in said for found in _IDENTIFIER.findall(text.casefold())):
            return True
    return False
