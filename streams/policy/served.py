"""The serving policy as branching uses it: sampled actions, and negative log-likelihoods of observations."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol, TypeVar

import structlog
from tenacity import AsyncRetrying, RetryError, retry_if_exception, stop_after_delay, wait_random_exponential

from ratchet_client.messages import Message, Tools
from streams.errors import ContextLengthError, PolicyError
from streams.policy.client import PolicyClient, Reply, Sampling

log = structlog.get_logger()

_LONGEST_WAIT_S = 5.0

_Answer = TypeVar("_Answer")


@dataclass(frozen=True, slots=True)
class Samples:
    """Replies that the policy would give at one state, and the name of the model that really answered."""

    replies: tuple[Message, ...] = ()
    model: str = ""


class Policy(Protocol):
    """A policy that silence does not raise from: branching goes on without it."""

    async def sample(
        self, messages: Sequence[Message], tools: Tools, samplings: Sequence[Sampling], samples: int
    ) -> Samples:
        """Draw replies at a state where `tools` are offered, in equal parts with each of `samplings`.

        An unavailable policy gives none.
        """
        ...

    async def negative_log_likelihoods(self, messages: Sequence[Message], tools: Tools) -> tuple[float, ...] | None:
        """Of each observation in an episode's messages, the loss in nats per token; None from an unavailable policy."""
        ...


@dataclass(frozen=True, slots=True)
class ServedPolicy:
    """The model `model` of an inference server. A silent one is asked again for `patience_s` seconds."""

    client: PolicyClient
    model: str
    patience_s: float

    async def sample(
        self, messages: Sequence[Message], tools: Tools, samplings: Sequence[Sampling], samples: int
    ) -> Samples:
        shares = [len(range(number, samples, len(samplings))) for number in range(len(samplings))]
        drawn = await asyncio.gather(
            *(
                self._patiently(partial(self.client.chat, self.model, messages, sampling, tools=tools, n=share))
                for sampling, share in zip(samplings, shares, strict=True)
                if share
            )
        )
        replies = [reply for part in drawn for reply in part or ()]
        whole = tuple(reply.message for reply in replies if not (tools and _is_cut(reply)))
        return Samples(whole, replies[0].model if replies else "")

    async def negative_log_likelihoods(self, messages: Sequence[Message], tools: Tools) -> tuple[float, ...] | None:
        found = await self._patiently(partial(self.client.negative_log_likelihoods, self.model, messages, tools))
        return None if found is None else tuple(each.nats for each in found)

    async def _patiently(self, ask: Callable[[], Awaitable[_Answer]]) -> _Answer | None:
        try:
            async for attempt in AsyncRetrying(
                retry=retry_if_exception(lambda error: type(error) is PolicyError),
                stop=stop_after_delay(self.patience_s),
                wait=wait_random_exponential(multiplier=0.5, max=_LONGEST_WAIT_S),
            ):
                with attempt:
                    return await ask()
        except RetryError as error:
            reason = str(error.last_attempt.exception())
            log.warning("policy silent, branching without it", model=self.model, reason=reason)
        except ContextLengthError as error:
            log.warning("chat too long for the policy, branching without it", model=self.model, reason=str(error))
        return None


def _is_cut(reply: Reply) -> bool:
    """Return whether a reply ended at its limit. Where tools are offered it may have been about to call one."""
    return reply.finish_reason == "length"
