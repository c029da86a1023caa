"""Changes to the logits of one reply before its next token is drawn: penalties, biases, forbidden tokens, a grammar.

The sequences that ask for any of it hold a `Steering`; the runner leaves the rows of all others alone.
"""

from collections.abc import Sequence

import numpy as np
import torch
from llguidance import LLMatcher

from daemon.inference.sampling import SamplingParameters
from daemon.inference.slots import Tokens

_NEVER = -torch.inf


def steering_of(parameters: SamplingParameters, prompt: Tokens, matcher: LLMatcher | None) -> "Steering | None":
    """The steering that a reply needs, None if its logits are drawn from as they are."""
    neutral = SamplingParameters()
    steered = any(
        getattr(parameters, name) != getattr(neutral, name)
        for name in (
            *("min_tokens", "frequency_penalty", "presence_penalty", "repetition_penalty"),
            *("logit_bias", "allowed_tokens", "bad_words"),
        )
    )
    return Steering(parameters, prompt, matcher) if steered or matcher is not None else None


class Steering:
    """The changes for one reply, in vLLM's order. The grammar, which comes last, wins over everything else.

    Attributes:
        failure: the reason for which the grammar cannot be followed any further; None while it can.
    """

    def __init__(self, parameters: SamplingParameters, prompt: Tokens, matcher: LLMatcher | None) -> None:
        self._parameters = parameters
        self._matcher = matcher
        self._seen = torch.from_numpy(np.unique(prompt)).long() if parameters.repetition_penalty != 1 else None
        self._biased = torch.tensor(list(parameters.logit_bias), dtype=torch.long)
        self._biases = torch.tensor(list(parameters.logit_bias.values()))
        self._stops = torch.tensor(sorted(parameters.stop_tokens), dtype=torch.long)
        allowed = parameters.allowed_tokens
        self._allowed = None if allowed is None else torch.tensor(allowed, dtype=torch.long)
        self.failure: str | None = None

    def steer(self, logits: torch.Tensor, drawn: Sequence[int]) -> torch.Tensor:
        """The changed logits of the token that follows `drawn`; `logits` (vocabulary) stay as they are."""
        steered = self._adjusted(logits.clone(), drawn)
        unsteered = logits
        if self._matcher is not None:
            mask = self._matcher.compute_bitmask()
            if self._matcher.is_error():
                self.failure = self._matcher.get_error().splitlines()[0]
                return logits
            bits = np.unpackbits(np.frombuffer(mask, dtype=np.uint8), bitorder="little")[: len(logits)]
            forbidden = torch.from_numpy(bits == 0)
            steered, unsteered = steered.masked_fill_(forbidden, _NEVER), logits.masked_fill(forbidden, _NEVER)
        # Where all is forbidden, the last to forbid gives way.
        return steered if bool((steered > _NEVER).any()) else unsteered

    def take(self, token: int) -> None:
        """Tell the grammar of the token that was drawn."""
        if self._matcher is not None and self.failure is None and not self._matcher.consume_token(token):
            self.failure = self._matcher.get_error().splitlines()[0]

    def _adjusted(self, logits: torch.Tensor, drawn: Sequence[int]) -> torch.Tensor:
        own = self._parameters
        if self._allowed is not None:
            kept = logits[self._allowed]
            logits.fill_(_NEVER)
            logits[self._allowed] = kept
        for word in own.bad_words:
            if tuple(drawn[len(drawn) - len(word) + 1 :]) == word[:-1]:
                logits[word[-1]] = _NEVER
        if len(drawn) < own.min_tokens:
            logits[self._stops] = _NEVER
        if len(self._biased):
            logits[self._biased] += self._biases
        if own.repetition_penalty != 1 or own.frequency_penalty or own.presence_penalty:
            tokens, counts = torch.tensor(drawn, dtype=torch.long).unique(return_counts=True)
            if self._seen is not None:
                seen = torch.cat((self._seen, tokens)).unique()
                values = logits[seen]
                factor = own.repetition_penalty
                logits[seen] = values.where(values > 0, values * factor).where(values <= 0, values / factor)
            logits[tokens] -= own.frequency_penalty * counts + own.presence_penalty
        return logits
