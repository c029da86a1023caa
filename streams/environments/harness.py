"""Renders an environment's states into the messages that the production agent would have sent, byte for byte.

Branching compares recordings with it, and evaluation plays through it, so that what is judged is what serves.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Annotated, Literal, TypeAlias

from pydantic import BeforeValidator

from ratchet_client.messages import Message, Messages, assistant
from streams.environments import tool_calls

SYSTEM_PROMPT = (
    "You are playing a text game. Reply with one action, such as: take OBJECT, open CONTAINER, put OBJECT in CONTAINER."
)


def _of_before(reply: object) -> object:
    return "message" if reply == "text" else reply


# Where it is read from settings or a server, "text" still stands for "message": all of the reply.
Reply: TypeAlias = Annotated[Literal["line", "last_line", "message"], BeforeValidator(_of_before)]


@dataclass(frozen=True, slots=True)
class ChatHarness:
    """An episode as an append-only conversation: every state's messages are a prefix of the next one's.

    `reply` says how much of a model's reply is the action: its first line, its last line with reasons before it, or the
    whole message with its tool calls.
    `max_tokens` and `stop` bound a reply as it is sampled. An empty `system_prompt` is no message.
    """

    system_prompt: str = SYSTEM_PROMPT
    max_steps: int = 15
    patience: int = 4
    reply: Reply = "line"
    max_tokens: int = 16
    stop: tuple[str, ...] = ("\n",)

    def opening(self, first: Messages) -> Messages:
        """The messages of the first state, from those that the environment's `reset` gave."""
        system = (Message(role="system", content=self.system_prompt),) if self.system_prompt else ()
        return (*system, *first)

    def extend(self, messages: Messages, action: Message, observation: Messages) -> Messages:
        """The messages of the state after `action` was answered with `observation`."""
        return (*messages, action.spoken(), *observation)

    def gives_up(self, messages: Sequence[Message]) -> bool:
        """Return whether the last `patience` answers were the same: the policy repeats itself, and the episode ends."""
        answers: list[tuple[object, ...]] = []
        left = list(messages)
        while len(answers) < self.patience:
            answer = list(takewhile(lambda message: message.role != "assistant", reversed(left)))
            del left[len(left) - len(answer) :]
            if not left or not answer:
                return False
            left.pop()
            answers.append(tuple((each.role, each.text) for each in answer))
        return len(set(answers)) == 1

    def parse(self, reply: Message) -> Message:
        """The action in a model's reply, its text stripped.

        >>> ChatHarness().parse(assistant(" open fridge \\nThen I would look inside.")).text
        'open fridge'
        >>> ChatHarness(reply="last_line").parse(assistant("Food spoils outside.\\nopen fridge ")).text
        'open fridge'
        """
        if self.reply == "message":
            return reply.model_copy(update={"content": reply.text.strip() or None})
        if self.reply == "last_line":
            return assistant(reply.text.strip().rpartition("\n")[2].strip(), reasoning=reply.reasoning_content)
        return assistant(reply.text.partition("\n")[0].strip(), reasoning=reply.reasoning_content)


def canonical(action: Message) -> str:
    """The key of an action: of a text in lower case, single spaces, no punctuation at the end; of calls what they call.

    >>> canonical(assistant("  Open the  Fridge. "))
    'open the fridge'
    """
    if action.calls:
        return tool_calls.canonical(action)
    return " ".join(action.text.lower().split()).rstrip(".!?,;: ")
