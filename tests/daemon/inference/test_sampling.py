"""Draws follow the distribution they are asked for."""

import math

import pytest
import torch

from daemon.inference.sampling import Draw, draw_tokens, log_probabilities, nucleus

PROBABILITIES = torch.tensor([0.5, 0.3, 0.15, 0.05])


def drawn(temperature: float, top_p: float, count: int = 4000) -> list[float]:
    """How often each of the four tokens comes up."""
    generator = torch.Generator().manual_seed(0)
    logits = PROBABILITIES.log().repeat(count, 1)
    tokens = draw_tokens(logits, [Draw(temperature, top_p, generator)] * count)
    return [tokens.count(token) / count for token in range(4)]


def test_temperature_one_draws_by_the_probabilities() -> None:
    assert drawn(1.0, 1.0) == pytest.approx(PROBABILITIES.tolist(), abs=0.03)


def test_a_temperature_flattens() -> None:
    flattened = PROBABILITIES.sqrt() / PROBABILITIES.sqrt().sum()
    assert drawn(2.0, 1.0) == pytest.approx(flattened.tolist(), abs=0.03)


def test_zero_temperature_takes_the_likeliest_beside_rows_that_are_drawn() -> None:
    logits = torch.tensor([[0.0, 5.0, 1.0], [0.0, 0.0, 0.0]])
    hot = Draw(1.0, 1.0, torch.Generator().manual_seed(1))
    assert draw_tokens(logits, [Draw(0.0, 1.0, None), hot])[0] == 1


def test_the_nucleus_is_the_smallest_set_that_reaches_its_mass() -> None:
    assert nucleus(PROBABILITIES, 0.75).tolist() == pytest.approx([0.5, 0.3, 0, 0])
    assert drawn(1.0, 0.75) == pytest.approx([0.625, 0.375, 0, 0], abs=0.03)


def test_a_nucleus_wider_than_the_likeliest_tokens_is_found_too() -> None:
    flat = torch.full((5000,), 1 / 5000)
    assert int((nucleus(flat, 0.9) > 0).sum()) == pytest.approx(4500, abs=5)


def test_log_probabilities_are_natural_logarithms_of_the_untempered_distribution() -> None:
    values = log_probabilities(PROBABILITIES.log().repeat(2, 1) + 3.0, [0, 3])
    assert values == pytest.approx([math.log(0.5), math.log(0.05)], abs=1e-5)
