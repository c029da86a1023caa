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


@pytest.mark.parametrize("temperature", [5e-324, 1e-300, 1e-45, 1e-38, 1e-9, 9e-6, 1e-4])
def test_a_tiny_temperature_takes_the_likeliest_token(temperature: float) -> None:
    logits = torch.tensor([[-30.0, 40.0, 39.9, -math.inf], [-math.inf, -math.inf, -80.0, -80.1]])
    draws = [Draw(temperature, 1.0, torch.Generator().manual_seed(seed)) for seed in range(2)]
    assert draw_tokens(logits, draws) == [1, 2]


@pytest.mark.parametrize("top_p", [5e-324, 1e-300, 1e-46, 1e-45, 1e-9])
def test_a_tiny_nucleus_is_the_likeliest_token(top_p: float) -> None:
    assert drawn(1.0, top_p, count=200) == [1, 0, 0, 0]


@pytest.mark.parametrize("temperature", [0.0, 1e-5, 1.0, 2.0, 1e30])
def test_a_token_whose_logit_is_minus_infinity_is_never_drawn(temperature: float) -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.tensor([-math.inf, 3e38, -math.inf, 2.9e38, -math.inf]).repeat(300, 1)
    assert set(draw_tokens(logits, [Draw(temperature, 1.0, generator)] * 300)) <= {1, 3}


def test_a_token_that_cannot_be_drawn_has_a_log_probability_that_json_can_hold() -> None:
    assert log_probabilities(torch.tensor([[0.0, -math.inf], [0.0, -20000.0]]), [1, 1]) == [-9999.0, -9999.0]
