"""Policies that say what a test wants said. What the policy says is the input of these tests."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from ratchet_client.messages import Message, Messages, Tools, assistant
from streams.policy.client import Sampling
from streams.policy.served import Samples


def said(*texts: str) -> Messages:
    """Replies that are texts."""
    return tuple(map(assistant, texts))


@dataclass(slots=True)
class FixedPolicy:
    """Replies with the same at every state, predicts everything with the same loss, and notes what it was asked."""

    replies: Messages = ()
    loss: float = 1.0
    asked: list[Messages] = field(default_factory=list)
    offered: list[Tools] = field(default_factory=list)
    samplings: list[Sampling] = field(default_factory=list)

    async def sample(
        self, messages: Sequence[Message], tools: Tools, samplings: Sequence[Sampling], samples: int
    ) -> Samples:
        self.asked.append(tuple(messages))
        self.offered.append(tools)
        self.samplings += samplings
        return Samples(self.replies[:samples], "ratchet-1-abc" if self.replies else "")

    async def negative_log_likelihoods(self, messages: Sequence[Message], tools: Tools) -> tuple[float, ...]:
        return (self.loss,) * sum(message.role == "assistant" for message in messages)


@dataclass(slots=True)
class ExpertPolicy:
    """Knows what to do after each observation, and else looks around."""

    answers: dict[str, Message]

    async def sample(
        self, messages: Sequence[Message], tools: Tools, samplings: Sequence[Sampling], samples: int
    ) -> Samples:
        return Samples((self.answers.get(messages[-1].text, assistant("look around")),) * samples, "ratchet-2-def")

    async def negative_log_likelihoods(self, messages: Sequence[Message], tools: Tools) -> None:
        return None
