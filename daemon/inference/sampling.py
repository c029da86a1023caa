"""Drawing the next tokens of a batch from their logits. The runner calls it once per forward pass."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch.nn.functional import cross_entropy

# The nucleus nearly always lies within this many tokens; sorting a whole vocabulary takes milliseconds a row.
_LIKELIEST = 512
# As vLLM has it. Divided by a much smaller temperature, float32 overflows.
GREEDY_BELOW = 1e-5
# OpenAI's clients write top_p 0 for the likeliest token alone; sampling parameters have it above 0.
SMALLEST_TOP_P = 1e-9


@dataclass(frozen=True, slots=True)
class SamplingParameters:
    """Parameters of one reply, with the meaning that vLLM's `SamplingParams` gives them.

    Attributes:
        top_k: at most this many of the likeliest tokens are drawn from; 0 for all of them.
        min_p: tokens less likely than this part of the likeliest one's probability are not drawn.
        min_tokens: before that many tokens no stop token is drawn and no stop string searched for.
        stop_tokens: the tokens at which the reply ends, the model's own ones included.
        include_stop: the text keeps the stop string or token at which it ended.
        keep_special: the text keeps special tokens.
        logit_bias: what is added to the logits of tokens.
        allowed_tokens: the only tokens that are drawn; None for all.
        bad_words: sequences of tokens that are never completed.
    """

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    seed: int | None = None
    max_tokens: int = 16
    min_tokens: int = 0
    stop: tuple[str, ...] = ()
    stop_tokens: frozenset[int] = frozenset()
    include_stop: bool = False
    keep_special: bool = False
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    repetition_penalty: float = 1.0
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    allowed_tokens: tuple[int, ...] | None = None
    bad_words: tuple[tuple[int, ...], ...] = ()


@dataclass(frozen=True, slots=True)
class Draw:
    """The part of one row's sampling parameters that `draw_tokens` needs. Temperature 0 needs no generator.

    A temperature below `GREEDY_BELOW` takes the likeliest token.
    """

    temperature: float
    top_p: float
    generator: torch.Generator | None
    top_k: int = 0
    min_p: float = 0.0


def draw_tokens(logits: torch.Tensor, draws: Sequence[Draw]) -> list[int]:
    """One token per row of `logits` (rows, vocabulary), which are float32."""
    tokens = logits.argmax(-1)
    hot = [row for row, draw in enumerate(draws) if draw.temperature >= GREEDY_BELOW]
    if hot:
        temperatures = torch.tensor([draws[row].temperature for row in hot])
        # At most zero, so that no temperature makes them overflow.
        relative = logits[hot] - logits[hot].amax(-1, keepdim=True)
        probabilities = (relative / temperatures[:, None]).softmax(-1)
        for index, row in enumerate(hot):
            if draws[row].top_p < 1 or draws[row].top_k or draws[row].min_p:
                probabilities[index] = _cut(probabilities[index], draws[row])
        cumulative = probabilities.cumsum(-1, dtype=torch.float64)
        uniform = torch.stack([torch.rand(1, dtype=torch.float64, generator=draws[row].generator) for row in hot])
        # `right` skips tokens of probability zero even when the draw is exactly zero.
        tokens[hot] = torch.searchsorted(cumulative, uniform * cumulative[:, -1:], right=True)[:, 0]
    return [int(token) for token in tokens.clamp_(max=logits.shape[-1] - 1)]


def _cut(probabilities: torch.Tensor, draw: Draw) -> torch.Tensor:
    """Zero the tokens that `draw` excludes: by `min_p`, then by `top_k`, then by `top_p`, as vLLM does."""
    if draw.min_p > 0:
        probabilities = probabilities.where(probabilities >= draw.min_p * probabilities.max(), 0.0)
    if 0 < draw.top_k < probabilities.numel():
        values, indices = probabilities.topk(draw.top_k)
        probabilities = torch.zeros_like(probabilities).scatter_(0, indices, values)
    if draw.top_p == 1:
        return probabilities
    if draw.min_p or draw.top_k:
        probabilities = probabilities / probabilities.sum()
    return nucleus(probabilities, draw.top_p)


def nucleus(probabilities: torch.Tensor, top_p: float) -> torch.Tensor:
    """Zero all but the smallest set of tokens whose probability reaches `top_p` (Holtzman et al. 2020, section 3.1)."""
    values, indices = probabilities.topk(min(_LIKELIEST, probabilities.numel()))
    if values.sum() < top_p:
        values, indices = probabilities.sort(descending=True)
    before = values.cumsum(-1) - values
    kept = before < top_p
    # A very small `top_p` is zero in float32.
    kept[0] = True
    return torch.zeros_like(probabilities).scatter_(0, indices[kept], values[kept])


def log_probabilities(logits: torch.Tensor, tokens: Sequence[int]) -> list[float]:
    """The natural logarithm of each row's probability of its token, before any temperature.

    -9999 stands for anything below it, as in the OpenAI API: JSON has no infinity.
    """
    # As the trainer computes its loss; `logsumexp` is several times slower over a whole vocabulary.
    losses = cross_entropy(logits, torch.tensor(tokens), reduction="none")
    values: list[float] = losses.neg().clamp(min=-9999.0).tolist()
    return values


def likeliest(logits: torch.Tensor, count: int) -> list[tuple[int, float]]:
    """The `count` likeliest tokens of one row of logits, each with its log-probability."""
    values, tokens = logits.log_softmax(-1).topk(min(count, logits.numel()))
    return list(zip(tokens.tolist(), values.clamp(min=-9999.0).tolist(), strict=True))
