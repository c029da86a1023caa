"""Policies that say what a test wants said. What the policy says is the input of these tests."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from streams.events import Message
from streams.policy.served import Samples


@dataclass(slots=True)
class FixedPolicy:
    """Replies with the same at every state, foresees everything with the same loss, and notes what it was asked."""

    replies: tuple[str, ...] = ()
    loss: float = 1.0
    asked: list[tuple[Message, ...]] = field(default_factory=list)

    async def sample(self, messages: Sequence[Message], temperatures: Sequence[float], samples: int) -> Samples:
        self.asked.append(tuple(messages))
        return Samples(self.replies[:samples], "ratchet-1-abc" if self.replies else "")

    async def surprises(self, messages: Sequence[Message]) -> tuple[float, ...]:
        return (self.loss,) * sum(message.role == "assistant" for message in messages)


@dataclass(slots=True)
class ExpertPolicy:
    """Knows what to do after each observation, and else looks around."""

    answers: dict[str, str]

    async def sample(self, messages: Sequence[Message], temperatures: Sequence[float], samples: int) -> Samples:
        return Samples((self.answers.get(messages[-1].content, "look around"),) * samples, "ratchet-2-def")

    async def surprises(self, messages: Sequence[Message]) -> None:
        return None
