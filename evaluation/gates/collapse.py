"""The gate `collapse`: the candidate still speaks like a model that acts, and not far from the one it is to replace.

At states of the champion's held-out episodes both draw replies, which both then score. The divergence is the mean of
log p(y) - log q(y) per token over replies y of the candidate p to the champion q, an unbiased estimate of KL(p || q)
(Schulman 2020, "Approximating KL divergence", its k1); the entropy of a model is the mean of -log p(y) per token over
its own replies. Distinct n-grams: Li et al. (2016), arXiv 1510.03055.
"""

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import ClassVar

from evaluation.gates.gate import Evidence
from evaluation.gates.verdict import GateResult, Verdict
from evaluation.scored_replies import ScoredReply, State, scored_replies
from evaluation.settings import CollapseSettings, GateSettings
from ratchet_client.ids import content_id
from ratchet_client.messages import Message
from streams.environments.harness import canonical
from streams.errors import GateError
from streams.policy.client import Sampling

_WORD = re.compile(r"\w+|[^\w\s]")
_SEED = 0


@dataclass(frozen=True, slots=True)
class Speech:
    """A model's way to reply: means over its replies at the same states.

    `entropy` is in nats per token, `length` in tokens. `distinct` are the shares of n-grams of words, for n of 1, 2 and
    3, that are different ones; `commonest` is the share of the one reply that it gives most.
    """

    entropy: float
    length: float
    distinct: tuple[float, float, float]
    commonest: float

    @classmethod
    def of(cls, replies: Sequence[ScoredReply]) -> "Speech":
        """Raises `GateError` where all of them are empty."""
        tokens = sum(len(reply.own) for reply in replies)
        if not tokens:
            raise GateError("every reply that was drawn is empty: there is nothing to tell a collapse from")
        words = [_WORD.findall(_text(reply.message)) for reply in replies]
        same = Counter(canonical(reply.message) for reply in replies)
        return cls(
            entropy=-sum(chain.from_iterable(reply.own for reply in replies)) / tokens,
            length=tokens / len(replies),
            distinct=(distinct(words, 1), distinct(words, 2), distinct(words, 3)),
            commonest=max(same.values()) / len(replies),
        )


@dataclass(frozen=True, slots=True)
class Divergence:
    """Both sides' speech, and the divergence of the candidate from the champion, in nats per token."""

    champion: Speech
    candidate: Speech
    kl: float

    @property
    def entropy_ratio(self) -> float | None:
        """The candidate's entropy to the champion's; None where the champion has none."""
        return self.candidate.entropy / self.champion.entropy if self.champion.entropy > 0 else None

    @property
    def length_ratio(self) -> float | None:
        return self.candidate.length / self.champion.length if self.champion.length else None

    @property
    def distinct_ratio(self) -> float | None:
        return self.candidate.distinct[1] / self.champion.distinct[1] if self.champion.distinct[1] else None


def distinct(replies: Sequence[Sequence[str]], n: int) -> float:
    """The share of the n-grams of all replies that are different ones; 0 where there are none.

    >>> distinct([["take", "plate"], ["take", "plate"]], 2)
    0.5
    """
    grams = [tuple(words[at : at + n]) for words in replies for at in range(len(words) - n + 1)]
    return len(set(grams)) / len(grams) if grams else 0.0


def divergence(replies: Sequence[ScoredReply]) -> float:
    """KL per token, in nats, of the model that gave the replies to the other one that scored them.

    Raises `GateError` when it is not a finite number.
    """
    tokens = sum(len(reply.own) for reply in replies)
    kl = sum(sum(reply.own) - sum(reply.other) for reply in replies) / tokens if tokens else math.nan
    if not math.isfinite(kl):
        raise GateError("the divergence of the candidate is not a finite number: its log-probabilities are damaged")
    return kl


def signs(found: Divergence, settings: CollapseSettings, *, of_base: bool) -> list[str]:
    """Return what is outside of its bounds, a sentence each. `of_base` says that the champion is the base model."""
    said = []
    most = settings.max_kl_to_base if of_base else settings.max_kl
    if not found.kl <= most:
        said.append(f"It is {found.kl:.2f} nats per token from the champion, and {most:g} are allowed.")
    if of_base:
        return said
    usual = max(settings.max_commonest, found.champion.commonest)
    if found.candidate.commonest > usual:
        said.append(f"It gives one and the same reply at {found.candidate.commonest:.0%} of different states.")
    if found.distinct_ratio is not None and found.distinct_ratio < settings.min_distinct_ratio:
        said.append(f"Of its 2-grams {found.distinct_ratio:.2f} times as many are distinct as of the champion's.")
    low, high = settings.length_ratio
    if found.length_ratio is not None and not low <= found.length_ratio <= high:
        said.append(f"Its replies are {found.length_ratio:.2f} times as long as the champion's.")
    low, high = settings.entropy_ratio
    if said and found.entropy_ratio is not None and not low <= found.entropy_ratio <= high:
        said.append(f"Its entropy is {found.entropy_ratio:.2f} times the champion's.")
    return said


def states_of(evidence: Evidence, most: int) -> list[State]:
    """At most so many states, chosen by the hash of where they are: recorded ones where nothing was played."""
    found = {
        content_id("state", pair.task.task_id, str(number)): State(chat[:at], pair.champion.tools)
        for pair in evidence.pairs
        for chat in [pair.champion.messages]
        for number, at in enumerate(place for place, message in enumerate(chat) if message.role == "assistant")
    }
    if not found:
        found = {
            content_id("state", state.episode_id, str(state.step)): State(state.messages, state.tools)
            for state in evidence.recorded
        }
    return [found[key] for key in sorted(found)[:most]]


class Collapse:
    """The gate `collapse`."""

    name: ClassVar[str] = "collapse"
    plays: ClassVar[bool] = True

    def __init__(self, settings: GateSettings) -> None:
        self._settings = settings

    async def judge(self, evidence: Evidence) -> GateResult:
        """Raises `GateError` where there are no states, or their replies cannot be scored."""
        settings = self._settings.collapse
        states = states_of(evidence, settings.prompts)
        if not states:
            raise GateError("no held-out state to reply at: a gate before this one must play, or states be recorded")
        champion, candidate = evidence.champion.served, evidence.candidate.served
        sampling = Sampling(temperature=1.0, max_tokens=settings.max_tokens, seed=_SEED)
        if evidence.pairs:
            harness = evidence.arena.harness
            longest = min(settings.max_tokens, harness.max_tokens)
            sampling = sampling.model_copy(update={"max_tokens": longest, "stop": harness.stop})
        told = 0
        sides: list[list[ScoredReply]] = []
        # The champion's own log-probabilities are enough for its entropy.
        for own, other in ((champion, champion), (candidate, champion)):

            def report(done: int, before: int = told) -> None:
                evidence.progress(self.name, before + done, 2 * len(states))

            drawn = await scored_replies(
                evidence.arena.policy, states, own, other, sampling, self._settings.rollouts.concurrency, report
            )
            sides.append([reply for reply in drawn if reply is not None])
            told += len(states)
        found = Divergence(Speech.of(sides[0]), Speech.of(sides[1]), divergence(sides[1]))
        of_base = evidence.champion.adapter == evidence.base.adapter
        outside = signs(found, settings, of_base=of_base)
        near = f"At {len(states)} held-out states it is {found.kl:.2f} nats per token from the champion"
        return GateResult(
            gate=self.name,
            verdict=Verdict.HOLD if outside else Verdict.PROMOTE,
            reason=" ".join(("Its replies show a collapse.", *outside)) if outside else f"{near}, within the bounds.",
            figures={
                "states": len(states),
                "unscored": 2 * len(states) - len(sides[0]) - len(sides[1]),
                "kl_per_token": found.kl,
                "champion_is_base": of_base,
                "entropy_ratio": found.entropy_ratio,
                "length_ratio": found.length_ratio,
                **_figures("champion", found.champion),
                **_figures("candidate", found.candidate),
            },
        )


def _text(message: Message) -> str:
    return canonical(message) if message.calls else message.text


def _figures(side: str, speech: Speech) -> dict[str, float]:
    first, second, third = speech.distinct
    return {
        f"{side}_entropy": speech.entropy,
        f"{side}_length": speech.length,
        f"{side}_distinct_1": first,
        f"{side}_distinct_2": second,
        f"{side}_distinct_3": third,
        f"{side}_commonest": speech.commonest,
    }
