"""What changes the logits of a reply, with the meaning that vLLM gives to its parameters."""

import math
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import torch

from daemon.inference.answers import Answer
from daemon.inference.grammar import Grammars
from daemon.inference.grammar_words import grammar_tokenizer
from daemon.inference.sampling import Draw, SamplingParameters, draw_tokens, likeliest
from daemon.inference.sequence import Sequence
from daemon.inference.steering import steering_of
from learners.chat import ChatTokenizer
from streams.errors import RequestRefusedError

PROMPT = np.array([0, 1, 1], dtype=np.int32)
LOGITS = torch.tensor([2.0, -1.0, 0.5, 3.0])


def steered(drawn: list[int], **parameters: Any) -> list[float]:
    steering = steering_of(SamplingParameters(**parameters), PROMPT, None)
    assert steering is not None
    before = LOGITS.clone()
    values: list[float] = steering.steer(LOGITS, drawn).tolist()
    assert torch.equal(before, LOGITS)
    return values


def test_neutral_parameters_steer_nothing() -> None:
    assert steering_of(SamplingParameters(temperature=0.5, top_k=3, min_p=0.1, stop=("a",)), PROMPT, None) is None


def test_penalties_count_what_was_drawn() -> None:
    assert steered([2, 2, 3], frequency_penalty=0.5, presence_penalty=1) == [2, -1, 0.5 - 2, 3 - 1.5]
    assert steered([], frequency_penalty=2, presence_penalty=2) == LOGITS.tolist()


def test_the_repetition_penalty_counts_the_prompt_too_and_moves_every_logit_down() -> None:
    assert steered([3], repetition_penalty=2) == [1, -2, 0.5, 1.5]
    assert steered([], repetition_penalty=0.5) == [4, -0.5, 0.5, 3]


def test_biases_are_added_and_tokens_forbidden() -> None:
    assert steered([], logit_bias={2: 5.0, 0: -100.0}) == [-98, -1, 5.5, 3]
    assert steered([], allowed_tokens=(1, 2)) == [-math.inf, -1, 0.5, -math.inf]
    assert steered([], min_tokens=2, stop_tokens=frozenset({3})) == [2, -1, 0.5, -math.inf]
    assert steered([0, 0], min_tokens=2, stop_tokens=frozenset({3})) == LOGITS.tolist()


def test_a_bad_word_is_never_completed() -> None:
    assert steered([1], bad_words=((3,),)) == [2, -1, 0.5, -math.inf]
    assert steered([1, 2], bad_words=((1, 2, 0),)) == [-math.inf, -1, 0.5, 3]
    assert steered([2, 1], bad_words=((1, 2, 0),)) == LOGITS.tolist()


def test_where_everything_is_forbidden_nothing_is() -> None:
    assert steered([], allowed_tokens=(3,), min_tokens=1, stop_tokens=frozenset({3})) == LOGITS.tolist()


async def test_a_reply_whose_grammar_cannot_be_followed_is_an_error_and_not_a_text(tiny_base: Path) -> None:
    chat = ChatTokenizer(tiny_base)
    grammars = Grammars(lambda: grammar_tokenizer(chat.tokenizer, len(chat.tokenizer), chat.stop_tokens))
    answer = Answer()
    sequence = Sequence(
        prompt=PROMPT,
        sampling=SamplingParameters(),
        tokenizer=chat.tokenizer.backend_tokenizer,
        listen=answer.listener(0),
        steering=steering_of(SamplingParameters(), PROMPT, grammars.matcher('start: "yes"', ())),
    )
    answer.sequences.append(sequence)
    sequence.take(chat.encode("no")[0], None)
    sequence.tell()
    with pytest.raises(RequestRefusedError, match="could not be held to the schema any further") as refused:
        await answer.finals()
    assert refused.value.status == 400


def share(**parameters: Any) -> list[float]:
    draw = Draw(1.0, generator=torch.Generator().manual_seed(0), **{"top_p": 1.0, **parameters})
    tokens = draw_tokens(torch.tensor([0.5, 0.3, 0.15, 0.05]).log().repeat(4000, 1), [draw] * 4000)
    return [tokens.count(token) / 4000 for token in range(4)]


def test_top_k_and_min_p_cut_the_distribution() -> None:
    assert share(top_k=2) == pytest.approx([0.625, 0.375, 0, 0], abs=0.03)
    assert share(min_p=0.25) == pytest.approx([0.526, 0.316, 0.158, 0], abs=0.03)
    assert share(top_k=2, top_p=0.6) == [1, 0, 0, 0]
    assert share(top_k=10, min_p=1.0) == [1, 0, 0, 0]


def test_the_likeliest_tokens_are_told_in_order() -> None:
    tokens, values = zip(*likeliest(LOGITS, 3), strict=True)
    assert tokens == (3, 0, 2)
    assert values == pytest.approx(LOGITS.log_softmax(-1)[list(tokens)].tolist())


BODY: dict[str, Any] = {
    "model": "base",
    "messages": [{"role": "user", "content": "You see a closed fridge."}],
    "max_tokens": 12,
    "temperature": 0,
    "return_token_ids": True,
}


def ask(http: httpx.Client, **fields: Any) -> dict[str, Any]:
    answer = http.post("/v1/chat/completions", json=BODY | fields)
    assert answer.status_code == 200, answer.text
    (choice,) = answer.json()["choices"]
    assert isinstance(choice, dict)
    return choice


def test_every_parameter_reaches_the_reply(http: httpx.Client) -> None:
    plain = ask(http)["token_ids"]
    first = str(plain[0])
    assert ask(http, logit_bias={first: -100})["token_ids"][0] != plain[0]
    assert set(ask(http, allowed_token_ids=[7, 8], max_tokens=5)["token_ids"]) <= {7, 8}
    assert plain[0] not in ask(http, bad_words=[ask(http, max_tokens=1)["message"]["content"]])["token_ids"]
    repeated = ask(http, logit_bias={"7": 100})["token_ids"]
    assert repeated == [7] * 12
    penalised = ask(http, logit_bias={"7": 3}, frequency_penalty=2, presence_penalty=2, repetition_penalty=50)
    assert penalised["token_ids"].count(7) < 12
    hot = {"temperature": 2, "seed": 3}
    for cut in ({"top_k": 1}, {"min_p": 1}):
        assert ask(http, **hot, **cut)["token_ids"] == plain


def test_stop_tokens_end_a_reply_where_they_may(http: httpx.Client) -> None:
    plain = ask(http)
    stop = plain["token_ids"][4]
    at = plain["token_ids"].index(stop)
    stopped = ask(http, stop_token_ids=[stop])
    assert (stopped["token_ids"], stopped["finish_reason"]) == (plain["token_ids"][: at + 1], "stop")
    assert plain["message"]["content"].startswith(stopped["message"]["content"])
    kept = ask(http, stop_token_ids=[stop], include_stop_str_in_output=True)["message"]["content"]
    assert len(kept) > len(stopped["message"]["content"])
    assert plain["message"]["content"].startswith(kept)
    later = ask(http, stop_token_ids=[stop], min_tokens=10)
    assert stop not in later["token_ids"][:10]
    assert len(later["token_ids"]) >= 10


def test_the_models_own_end_is_ignored_if_asked(http: httpx.Client) -> None:
    end = {"logit_bias": {"2": 100}}
    assert ask(http, **end)["token_ids"] == [2]
    ignored = ask(http, **end, ignore_eos=True)
    assert (ignored["token_ids"], ignored["message"]["content"]) == ([2] * 12, "")
    shown = ask(http, **end, ignore_eos=True, skip_special_tokens=False, max_tokens=2)
    assert shown["message"]["content"] == "<|im_end|>" * 2
    assert ask(http, **end, min_tokens=3)["token_ids"].index(2) == 3


def test_a_stop_string_is_kept_if_asked_and_not_searched_for_before_the_least_tokens(http: httpx.Client) -> None:
    whole = ask(http)["message"]["content"]
    stop = whole[3:6]
    cut = whole.index(stop)
    assert ask(http, stop=stop)["message"]["content"] == whole[:cut]
    assert ask(http, stop=stop, include_stop_str_in_output=True)["message"]["content"] == whole[: cut + 3]
    assert len(ask(http, stop=stop, min_tokens=11)["token_ids"]) >= 11


def test_likeliest_tokens_are_told_beside_the_drawn_one(http: httpx.Client) -> None:
    choice = ask(http, logprobs=True, top_logprobs=20, temperature=1, seed=5, logit_bias={"7": 2})
    for token in choice["logprobs"]["content"]:
        values = [each["logprob"] for each in token["top_logprobs"]]
        assert len(values) == 20
        assert values == sorted(values, reverse=True)
        assert token["logprob"] <= values[0] + 1e-6
    greedy = ask(http, logprobs=True, top_logprobs=1)["logprobs"]["content"]
    assert all(token["top_logprobs"][0]["token"] == token["token"] for token in greedy)
    ids = ask(http, logprobs=True, return_tokens_as_token_ids=True)
    assert [token["token"] for token in ids["logprobs"]["content"]] == [f"token_id:{each}" for each in ids["token_ids"]]


def test_completions_tell_likeliest_tokens_too(http: httpx.Client) -> None:
    body = {"model": "base", "prompt": "open the", "max_tokens": 4, "temperature": 0, "logprobs": 5}
    logprobs = http.post("/v1/completions", json=body).json()["choices"][0]["logprobs"]
    for token, value, likely in zip(
        logprobs["tokens"], logprobs["token_logprobs"], logprobs["top_logprobs"], strict=True
    ):
        assert likely[token] == pytest.approx(value)
        assert 1 < len(likely) <= 6
    plain = http.post("/v1/completions", json=body | {"logprobs": 0}).json()["choices"][0]["logprobs"]
    assert plain["top_logprobs"] is None


def test_steered_replies_do_not_change_the_ones_beside_them(http: httpx.Client) -> None:
    plain = ask(http)
    many = http.post("/v1/chat/completions", json=BODY | {"n": 3, "logit_bias": {"7": 100}}).json()["choices"]
    assert [choice["token_ids"] for choice in many] == [[7] * 12] * 3
    assert ask(http) == plain


@pytest.mark.parametrize("name", ["stop_token_ids", "allowed_token_ids", "logit_bias"])
def test_a_token_that_the_model_lacks_is_refused(http: httpx.Client, name: str) -> None:
    value: Any = {"999999": 1} if name == "logit_bias" else [999999]
    answer = http.post("/v1/chat/completions", json=BODY | {name: value})
    assert answer.status_code == 400
    assert name in answer.json()["error"]["message"]
