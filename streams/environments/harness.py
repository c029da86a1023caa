"""Renders an environment's states into the messages that the production agent would have sent, byte for byte.

Branching compares recordings with it, and evaluation plays through it, so that what is judged is what serves.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from streams.events import Message

SYSTEM_PROMPT = (
    "You are playing a text game. Reply with one action, such as: take OBJECT, open CONTAINER, put OBJECT in CONTAINER."
)


@dataclass(frozen=True, slots=True)
class ChatHarness:
    """An episode as an append-only conversation: every state's messages are a prefix of the next one's.

    `reply` says how much of a model's reply is the action: its first line, or all of it.
    """

    system_prompt: str = SYSTEM_PROMPT
    max_steps: int = 15
    patience: int = 4
    reply: Literal["line", "text"] = "line"

    def opening(self, first: str) -> tuple[Message, ...]:
        """The messages of the first state, from the text that the environment's `reset` gave."""
        return (Message(role="system", content=self.system_prompt), Message(role="user", content=first))

    def extend(self, messages: tuple[Message, ...], action: str, observation: str) -> tuple[Message, ...]:
        """The messages of the state after `action` was answered with `observation`."""
        return (*messages, Message(role="assistant", content=action), Message(role="user", content=observation))

    def gives_up(self, messages: Sequence[Message]) -> bool:
        """Return whether the last `patience` answers were the same: the policy repeats itself, and the episode ends."""
        answers = [message.content for message in messages[2:] if message.role == "user"][-self.patience :]
        return len(answers) == self.patience and len(set(answers)) == 1

    def parse(self, reply: str) -> str:
        """The action in a model's reply, stripped.

        >>> ChatHarness().parse(" open fridge \\nThen I would look inside.")
        'open fridge'
        """
        return (reply.partition("\n")[0] if self.reply == "line" else reply).strip()


def canonical(action: str) -> str:
    """The canonical spelling of an action: lower case, single spaces, no punctuation at the end.

    >>> canonical("  Open the  Fridge. ")
    'open the fridge'
    """
    return " ".join(action.lower().split()).rstrip(".!?,;: ")
