"""Drawing the next tokens of a batch from their logits. The runner calls it once per forward pass."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch.nn.functional import cross_entropy

# The nucleus nearly always lies within this many tokens; sorting a whole vocabulary takes milliseconds a row.
_LIKELIEST = 512
# As vLLM has it. Divided by a much smaller temperature, float32 overflows.
GREEDY_BELOW = 1e-5
# OpenAI's clients write top_p 0 for the likeliest token alone; sampling parameters have it above 0.
SMALLEST_TOP_P = 1e-9


@dataclass(frozen=True, slots=True)
class Draw:
    """Sampling parameters of one row. A temperature below `GREEDY_BELOW` takes the likeliest token.

    Temperature 0 needs no generator.
    """

    temperature: float
    top_p: float
    generator: torch.Generator | None


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
            if draws[row].top_p < 1:
                probabilities[index] = nucleus(probabilities[index], draws[row].top_p)
        cumulative = probabilities.cumsum(-1, dtype=torch.float64)
        uniform = torch.stack([torch.rand(1, dtype=torch.float64, generator=draws[row].generator) for row in hot])
        # `right` skips tokens of probability zero even when the draw is exactly zero.
        tokens[hot] = torch.searchsorted(cumulative, uniform * cumulative[:, -1:], right=True)[:, 0]
    return [int(token) for token in tokens.clamp_(max=logits.shape[-1] - 1)]


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
