"""One reply under way: its prompt, what was drawn so far, and when it is over. The runner drives it."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from tokenizers import Tokenizer
from tokenizers.decoders import DecodeStream

from daemon.inference.sampling import Draw, SamplingParameters
from daemon.inference.slots import Tokens
from daemon.inference.steering import Steering

FinishReason = Literal["stop", "length", "cancelled", "failed"]
# Each token with its log-probability in nats.
Likeliest = tuple[tuple[int, float], ...]


@dataclass(frozen=True, slots=True)
class Update:
    """The text that arrived since the last update of a sequence.

    Attributes:
        text: new text that no stop string can take back.
        tokens, logprobs: the new tokens, special ones included, each with its log-probability in nats if asked for.
        likeliest: of each new token the likeliest ones in its place, if asked for.
        cached: how many tokens of the prompt were not computed again.
        prompt_logprobs: of the prompt's tokens from the first on that was asked for, in nats.
        finish_reason: None while more is to come.
        failure: the reason for which a grammar could not be followed, where `finish_reason` is "failed".
        stopped_by: the stop string that ended the reply, if one did.
    """

    text: str
    tokens: tuple[int, ...]
    logprobs: tuple[float, ...]
    likeliest: tuple[Likeliest, ...]
    cached: int
    prompt_logprobs: tuple[float, ...]
    finish_reason: FinishReason | None
    failure: str | None = None
    stopped_by: str | None = None


@dataclass(slots=True, eq=False)
class Sequence:
    """A prompt and its growing reply.

    With `sampling` None nothing is drawn. With `scored_from`, at least 1, the log-probabilities of the prompt's tokens
    from that position on are told too. `listen` is called on the engine's thread, at every token if `stream`, else once
    at the end. With `logprobs` the log-probability of every drawn token is told, and with `likeliest` those of so many
    of the likeliest tokens: as the model has them, before `sampling` or `steering` change anything.
    """

    prompt: Tokens
    sampling: SamplingParameters | None
    tokenizer: Tokenizer
    listen: Callable[[Update], None]
    scored_from: int | None = None
    stream: bool = False
    logprobs: bool = False
    likeliest: int = 0
    steering: Steering | None = None
    cancelled: bool = False
    slot: int = -1
    computed: int = 0
    cached: int = 0
    draw: Draw = field(init=False)
    finish_reason: FinishReason | None = field(init=False, default=None)
    prompt_logprobs: list[float] = field(init=False, default_factory=list)
    drawn: list[int] = field(init=False, default_factory=list)
    _logprobs: list[float] = field(init=False, default_factory=list)
    _likeliest: list[Likeliest] = field(init=False, default_factory=list)
    _text: str = field(init=False, default="")
    _told_tokens: int = field(init=False, default=0)
    _told_text: int = field(init=False, default=0)
    _stopped_by: str | None = field(init=False, default=None)
    _decoder: DecodeStream = field(init=False)

    def __post_init__(self) -> None:
        own = self.sampling
        self._decoder = DecodeStream(skip_special_tokens=own is None or not own.keep_special)
        self.draw = Draw(0.0, 1.0, None)
        if own is not None and own.temperature > 0:
            generator = torch.Generator()
            if own.seed is None:
                generator.seed()
            else:
                generator.manual_seed(own.seed)
            self.draw = Draw(own.temperature, own.top_p, generator, own.top_k, own.min_p)

    @property
    def pending(self) -> Tokens:
        """The tokens whose keys and values are not computed yet."""
        if self.computed < len(self.prompt):
            return self.prompt[self.computed :]
        return np.array(self.drawn[self.computed - len(self.prompt) :], dtype=np.int32)

    @property
    def prefilling(self) -> bool:
        return self.computed < len(self.prompt)

    def take(self, token: int, logprob: float | None, likeliest: Likeliest | None = None) -> None:
        """Add a drawn token; sets `finish_reason` if it is the last one."""
        assert self.sampling is not None
        self.drawn.append(token)
        if logprob is not None:
            self._logprobs.append(logprob)
        if likeliest is not None:
            self._likeliest.append(likeliest)
        if self.steering is not None:
            self.steering.take(token)
        searched = len(self._text)
        if token not in self.sampling.stop_tokens:
            self._text += self._decoder.step(self.tokenizer, token) or ""
            if len(self.drawn) > self.sampling.min_tokens:
                self._cut_at_stop(searched)
        else:
            self.finish_reason = "stop"
            if self.sampling.include_stop:
                self._text += self._decoder.step(self.tokenizer, token) or ""
        if self.finish_reason is None and len(self.drawn) >= self.sampling.max_tokens:
            self.finish_reason = "length"
        if self.steering is not None and self.steering.failure is not None:
            self.finish_reason = "failed"

    def tell(self) -> None:
        """Pass on what is new, if there is any and the listener wants it now."""
        if self.finish_reason is None and not (self.stream and len(self.drawn) > self._told_tokens):
            return
        safe = len(self._text) if self.finish_reason else self._safe_length()
        update = Update(
            text=self._text[self._told_text : safe],
            tokens=tuple(self.drawn[self._told_tokens :]),
            logprobs=tuple(self._logprobs[self._told_tokens :]),
            likeliest=tuple(self._likeliest[self._told_tokens :]),
            cached=self.cached,
            prompt_logprobs=tuple(self.prompt_logprobs),
            finish_reason=self.finish_reason,
            failure=self.steering.failure if self.steering is not None else None,
            stopped_by=self._stopped_by,
        )
        self._told_text, self._told_tokens = safe, len(self.drawn)
        self.listen(update)

    def _cut_at_stop(self, searched: int) -> None:
        assert self.sampling is not None
        ends: list[tuple[int, int, str]] = []
        for stop in self.sampling.stop:
            at = self._text.find(stop, max(0, searched - len(stop) + 1))
            if at >= 0:
                ends.append((at, at + len(stop) if self.sampling.include_stop else at, stop))
        if ends:
            _, end, self._stopped_by = min(ends)
            self._text = self._text[:end]
            self.finish_reason = "stop"

    def _safe_length(self) -> int:
        """Return the length of the text that is not a beginning of a stop string."""
        assert self.sampling is not None
        held = 0
        for stop in self.sampling.stop:
            for size in range(min(len(stop) - 1, len(self._text)), held, -1):
                if self._text.endswith(stop[:size]):
                    held = size
                    break
        return len(self._text) - held
