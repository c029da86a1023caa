"""Replies of served models at states of a conversation, and log-probabilities of actions there.

The gates that judge distributions instead of successes draw and score with it.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from ratchet_client.messages import Message, Messages, Tools
from streams.errors import GateError, PolicyError
from streams.policy.client import PolicyClient, Sampling

# A server that cannot score the odd chat still judges a candidate; one that cannot score many does not.
_MOST_UNSCORED = 0.1

T = TypeVar("T")
Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class State:
    """A chat that ends where the model is to act, and the tools that it may call."""

    messages: Messages
    tools: Tools = ()


@dataclass(frozen=True, slots=True)
class ScoredReply:
    """A reply at a state. `own` and `other` are the log-probabilities, in nats, of its tokens under two models."""

    message: Message
    own: tuple[float, ...]
    other: tuple[float, ...]


async def scored_replies(
    policy: PolicyClient,
    states: Sequence[State],
    own: str,
    other: str,
    sampling: Sampling,
    concurrency: int,
    done: Callable[[int], None] = lambda _: None,
) -> list[ScoredReply | None]:
    """One reply of the served model `own` at each state, scored under it and under `other`; None where it cannot be.

    Raises `GateError` when more than a tenth cannot be.
    """

    async def drawn(state: State) -> ScoredReply:
        (reply,) = await policy.chat(own, state.messages, sampling, tools=state.tools)
        chat = (*state.messages, reply.message)
        scores = [await policy.action_logprobs(own, chat, state.tools)]
        scores.append(scores[0] if other == own else await policy.action_logprobs(other, chat, state.tools))
        return ScoredReply(reply.message, *scores)

    return await each(states, drawn, concurrency, done)


async def each(
    items: Sequence[Item],
    ask: Callable[[Item], Awaitable[T]],
    concurrency: int,
    done: Callable[[int], None] = lambda _: None,
) -> list[T | None]:
    """The answers to `items`, so many asked for at once; None where the server refuses one.

    Raises `GateError` when it refuses more than a tenth of them.
    """

    async def attempt(item: Item) -> T | PolicyError:
        try:
            return await ask(item)
        except PolicyError as error:
            return error

    answers: list[T | PolicyError] = []
    for start in range(0, len(items), concurrency):
        answers += await asyncio.gather(*map(attempt, items[start : start + concurrency]))
        done(len(answers))
    refused = [answer for answer in answers if isinstance(answer, PolicyError)]
    if len(refused) > _MOST_UNSCORED * len(items):
        raise GateError(
            f"the inference server refused {len(refused)} of {len(items)} states, the first of them so: {refused[0]}"
        ) from refused[0]
    return [None if isinstance(answer, PolicyError) else answer for answer in answers]
