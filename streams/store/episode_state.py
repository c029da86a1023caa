"""The states of an episode, as the judge's decisions give them. The store's queries and the command line name them."""

from enum import StrEnum


class EpisodeState(StrEnum):
    """The state of an episode.

    `held-out` ones are trusted or failed, and of tasks that are kept for gates. `undecided` ones have an outcome and
    are neither trusted nor failed, `open` ones have none. `untrusted` ones were trusted or failed before.
    """

    OPEN = "open"
    TRUSTED = "trusted"
    FAILED = "failed"
    HELD_OUT = "held-out"
    UNDECIDED = "undecided"
    UNTRUSTED = "untrusted"
    FLAGGED = "flagged"
    REVOKED = "revoked"
