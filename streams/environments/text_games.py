"""The settings that text games share: how much of a policy's reply is its action."""

from dataclasses import replace

from pydantic import Field

from ratchet_client.settings import FrozenModel
from streams.environments.harness import ChatHarness

# A rationale and an action.
_MAX_TOKENS = 256


class TextGameSettings(FrozenModel):
    """Settings of a text game."""

    reasons: bool = Field(
        default=False, description="Replies may give reasons first: the action is their last line, not their first."
    )

    def harness(self, harness: ChatHarness) -> ChatHarness:
        """The game's harness, changed as these settings say."""
        return replace(harness, reply="last_line", max_tokens=_MAX_TOKENS, stop=()) if self.reasons else harness


PLAIN = TextGameSettings()
