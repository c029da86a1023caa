"""One reply under way: its prompt, what was drawn so far, and when it is over. The runner drives it."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from tokenizers import Tokenizer
from tokenizers.decoders import DecodeStream

from daemon.inference.sampling import Draw
from daemon.inference.slots import Tokens
from streams.policy.client import Sampling

FinishReason = Literal["stop", "length", "cancelled"]


@dataclass(frozen=True, slots=True)
class Update:
    """The text that arrived since the last update of a sequence.

    Attributes:
        text: new text that no stop string can take back.
        tokens, logprobs: the new tokens, special ones included, each with its log-probability in nats if asked for.
        cached: how many tokens of the prompt were not computed again.
        prompt_logprobs: of the prompt's tokens from the first on that was asked for, in nats.
        finish_reason: None while more is to come.
    """

    text: str
    tokens: tuple[int, ...]
    logprobs: tuple[float, ...]
    cached: int
    prompt_logprobs: tuple[float, ...]
    finish_reason: FinishReason | None


@dataclass(slots=True, eq=False)
class Sequence:
    """A prompt and its growing reply.

    With `sampling` None nothing is drawn. With `scored_from`, at least 1, the log-probabilities of the prompt's tokens
    from that position on are told too. `listen` is called on the engine's thread, at every token if `stream`, else once
    at the end.
    """

    prompt: Tokens
    sampling: Sampling | None
    stop_tokens: frozenset[int]
    tokenizer: Tokenizer
    listen: Callable[[Update], None]
    scored_from: int | None = None
    stream: bool = False
    logprobs: bool = False
    cancelled: bool = False
    slot: int = -1
    computed: int = 0
    cached: int = 0
    draw: Draw = field(init=False)
    finish_reason: FinishReason | None = field(init=False, default=None)
    prompt_logprobs: list[float] = field(init=False, default_factory=list)
    _drawn: list[int] = field(init=False, default_factory=list)
    _drawn_logprobs: list[float] = field(init=False, default_factory=list)
    _text: str = field(init=False, default="")
    _told_tokens: int = field(init=False, default=0)
    _told_text: int = field(init=False, default=0)
    _decoder: DecodeStream = field(init=False)

    def __post_init__(self) -> None:
        self._decoder = DecodeStream(skip_special_tokens=True)
        self.draw = Draw(0.0, 1.0, None)
        if self.sampling is not None and self.sampling.temperature > 0:
            generator = torch.Generator()
            if self.sampling.seed is None:
                generator.seed()
            else:
                generator.manual_seed(self.sampling.seed)
            self.draw = Draw(self.sampling.temperature, self.sampling.top_p, generator)

    @property
    def pending(self) -> Tokens:
        """The tokens whose keys and values are not computed yet."""
        if self.computed < len(self.prompt):
            return self.prompt[self.computed :]
        return np.array(self._drawn[self.computed - len(self.prompt) :], dtype=np.int32)

    @property
    def prefilling(self) -> bool:
        return self.computed < len(self.prompt)

    def take(self, token: int, logprob: float | None) -> None:
        """Add a drawn token; sets `finish_reason` if it is the last one."""
        assert self.sampling is not None
        self._drawn.append(token)
        if logprob is not None:
            self._drawn_logprobs.append(logprob)
        if token in self.stop_tokens:
            self.finish_reason = "stop"
        else:
            searched = len(self._text)
            self._text += self._decoder.step(self.tokenizer, token) or ""
            self._cut_at_stop(searched)
        if self.finish_reason is None and len(self._drawn) >= self.sampling.max_tokens:
            self.finish_reason = "length"

    def tell(self) -> None:
        """Pass on what is new, if there is any and the listener wants it now."""
        if self.finish_reason is None and not (self.stream and len(self._drawn) > self._told_tokens):
            return
        safe = len(self._text) if self.finish_reason else self._safe_length()
        update = Update(
            text=self._text[self._told_text : safe],
            tokens=tuple(self._drawn[self._told_tokens :]),
            logprobs=tuple(self._drawn_logprobs[self._told_tokens :]),
            cached=self.cached,
            prompt_logprobs=tuple(self.prompt_logprobs),
            finish_reason=self.finish_reason,
        )
        self._told_text, self._told_tokens = safe, len(self._drawn)
        self.listen(update)

    def _cut_at_stop(self, searched: int) -> None:
        assert self.sampling is not None
        ends = []
        for stop in self.sampling.stop:
            at = self._text.find(stop, max(0, searched - len(stop) + 1))
            if at >= 0:
                ends.append(at)
        if ends:
            self._text = self._text[: min(ends)]
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
