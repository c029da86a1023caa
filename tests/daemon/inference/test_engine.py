"""The engine computes what plain Transformers computes, whatever it batches, reuses or cuts into pieces."""

import queue
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from daemon.inference.engine import Engine
from daemon.inference.sampling import SamplingParameters
from daemon.inference.segments import AttentionPlan, plan_attention
from daemon.inference.sequence import Sequence, Update
from daemon.inference.settings import InferenceSettings
from learners.adapted_model import adapted_model
from learners.settings import LoraSettings
from streams.errors import RequestRefusedError
from tests.builders.base_models import edit_json, write_base
from tests.waiting import until

WORDS = [
    "the",
    "open",
    "fridge",
    "door",
    "take",
    "apple",
    "put",
    "knife",
    "in",
    "drawer",
    "and",
    "then",
    "look",
    "at",
    "table",
    "of",
    "wood",
]


@pytest.fixture(scope="module")
def reference(tiny_base: Path) -> PreTrainedModel:
    model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(tiny_base, dtype=torch.float32)
    model.eval()
    return model


@pytest.fixture
def engine(tiny_base: Path, request: pytest.FixtureRequest) -> Iterator[Engine]:
    settings = {"slots": 16, "max_length": 512, "threads": 1, "dtype": "float32", **getattr(request, "param", {})}
    running = Engine(InferenceSettings(model=tiny_base, **settings))
    running.start()
    yield running
    running.close()


def encode(engine: Engine, words: int, seed: int) -> list[int]:
    chosen = np.random.default_rng(seed).choice(WORDS, words)
    ids: list[int] = engine.tokenizer.backend_tokenizer.encode(" ".join(chosen)).ids
    return ids


def generate(engine: Engine, prompts: list[list[int]], model: str = "base", **sampling: Any) -> list[Update]:
    """The final updates of one sequence per prompt, all submitted at once."""
    told: queue.SimpleQueue[tuple[int, Update]] = queue.SimpleQueue()
    settings = SamplingParameters(
        **{"max_tokens": 12, "stop_tokens": engine.stop_tokens, "temperature": 0.0, **sampling}
    )
    sequences = [
        Sequence(
            prompt=np.array(prompt, dtype=np.int32),
            sampling=settings,
            tokenizer=engine.tokenizer.backend_tokenizer,
            listen=lambda update, index=index: told.put((index, update)),  # type: ignore[misc]  # mypy: no default args
            logprobs=True,
        )
        for index, prompt in enumerate(prompts)
    ]
    engine.submit(model, sequences)
    done = dict(told.get(timeout=60) for _ in prompts)
    return [done[index] for index in range(len(prompts))]


def greedy(reference: PreTrainedModel, prompt: list[int], tokens: int) -> list[int]:
    inputs = torch.tensor([prompt])
    generate: Any = reference.generate  # the stubs of its mixin do not see that it is callable
    output = generate(inputs, attention_mask=torch.ones_like(inputs), max_new_tokens=tokens, do_sample=False)
    return [int(token) for token in output[0, len(prompt) :]]


def test_greedy_replies_of_a_ragged_batch_are_those_of_generate(engine: Engine, reference: PreTrainedModel) -> None:
    prompts = [encode(engine, words, seed=words) for words in (1, 40, 3, 90, 17, 4, 60, 2)]
    replies = generate(engine, prompts)
    assert [list(reply.tokens) for reply in replies] == [greedy(reference, prompt, 12) for prompt in prompts]


def test_chats_with_a_common_prompt_attend_over_it_together_and_reply_as_if_alone(
    engine: Engine, reference: PreTrainedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    plans: list[AttentionPlan] = []

    def planned(*arguments: Any, **named: Any) -> AttentionPlan:
        plans.append(plan_attention(*arguments, **named))
        return plans[-1]

    monkeypatch.setattr("daemon.inference.runner.plan_attention", planned)
    # Two agents, each with a prompt of its own, in slots that alternate.
    agents = [encode(engine, 300, seed=1), encode(engine, 350, seed=2)]
    prompts = [[*agents[index % 2], *encode(engine, words, seed=words)] for index, words in enumerate(range(2, 44, 4))]
    replies = generate(engine, prompts)
    assert [list(reply.tokens) for reply in replies] == [greedy(reference, prompt, 12) for prompt in prompts]
    together = max(plans, key=lambda plan: sum(len(prefix.rows) for prefix in plan.shared))
    assert len(together.shared) == 2
    assert sum(part.rows for part in together.segments if part.start) == 11
    alone = [generate(engine, [prompt])[0] for prompt in prompts]
    assert not plans[-1].shared
    for reply, other in zip(replies, alone, strict=True):
        assert reply.logprobs == pytest.approx(other.logprobs, abs=1e-4)


@pytest.mark.parametrize("count", [1, 6])
def test_replies_that_repeat_themselves_are_drafted_and_are_those_of_generate(
    engine: Engine, reference: PreTrainedModel, count: int
) -> None:
    # An untrained model ends in a loop.
    prompts = [encode(engine, 200 + seed, seed=seed) for seed in range(count)]
    before = engine.load()
    replies = generate(engine, prompts, max_tokens=80)
    expected = [greedy(reference, prompt, 80) for prompt in prompts]
    assert [list(reply.tokens) for reply in replies] == expected
    for prompt, reply in zip(prompts, replies, strict=True):
        with torch.inference_mode():
            logits = reference(torch.tensor([[*prompt, *reply.tokens]])).logits[0].log_softmax(-1)
        computed = [float(logits[len(prompt) - 1 + at, token]) for at, token in enumerate(reply.tokens)]
        assert reply.logprobs == pytest.approx(computed, abs=1e-4)
    after = engine.load()
    assert after.decoded - before.decoded == sum(map(len, expected))
    assert after.drafted - before.drafted >= after.accepted - before.accepted > 10 * count


def test_a_draft_changes_no_seeded_reply_and_ends_where_the_reply_ends(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompts = [encode(engine, 60, seed=seed) * 2 for seed in range(3)]
    # So cold that it repeats itself, and draws nonetheless.
    sampling: dict[str, Any] = {"temperature": 0.05, "seed": 3, "max_tokens": 50}
    drafted = generate(engine, prompts, **sampling)
    assert engine.load().accepted > 0
    monkeypatch.setattr("daemon.inference.runner.draft_length", lambda replies: 0)
    plain = generate(engine, prompts, **sampling)
    assert [reply.tokens for reply in drafted] == [reply.tokens for reply in plain]
    stop = plain[0].text[8:14]
    monkeypatch.undo()
    (stopped,) = generate(engine, prompts[:1], stop=(stop,), **sampling)
    assert (stopped.finish_reason, stopped.text) == ("stop", plain[0].text[: plain[0].text.index(stop)])


def test_a_continued_chat_reuses_its_keys_and_replies_as_if_it_had_not(
    engine: Engine, reference: PreTrainedModel
) -> None:
    chats = [encode(engine, words, seed=words) for words in (20, 31, 12)]
    for turn in range(3):
        replies = generate(engine, chats)
        assert [list(reply.tokens) for reply in replies] == [greedy(reference, chat, 12) for chat in chats]
        if turn > 0:
            assert all(reply.cached > len(chat) - 15 for reply, chat in zip(replies, chats, strict=True))
        chats = [
            [*chat, *reply.tokens, *encode(engine, 5, seed=turn)] for chat, reply in zip(chats, replies, strict=True)
        ]


def test_nested_prompts_sent_together_compute_their_common_prefix_once(
    engine: Engine, reference: PreTrainedModel
) -> None:
    shared = encode(engine, 100, seed=5)
    prompts = [shared[:length] for length in range(20, 101, 10)]
    before = engine.load()
    replies = generate(engine, prompts)
    assert [list(reply.tokens) for reply in replies] == [greedy(reference, prompt, 12) for prompt in prompts]
    assert engine.load().prefilled - before.prefilled < 100 + 2 * len(prompts)


@pytest.mark.parametrize("engine", [{"slots": 2}], indirect=True)
def test_more_chats_than_slots_take_turns(engine: Engine, reference: PreTrainedModel) -> None:
    prompts = [encode(engine, 10 + seed, seed=seed) for seed in range(9)]
    replies = generate(engine, prompts)
    assert [list(reply.tokens) for reply in replies] == [greedy(reference, prompt, 12) for prompt in prompts]


@pytest.mark.parametrize("engine", [{"prefill_budget": 16}], indirect=True)
def test_prompts_beyond_the_budget_are_computed_in_pieces(engine: Engine, reference: PreTrainedModel) -> None:
    prompts = [encode(engine, words, seed=words) for words in (70, 50, 33)]
    replies = generate(engine, prompts)
    assert [list(reply.tokens) for reply in replies] == [greedy(reference, prompt, 12) for prompt in prompts]


def test_logprobs_of_a_reply_are_those_of_a_plain_forward(engine: Engine, reference: PreTrainedModel) -> None:
    prompt = encode(engine, 30, seed=8)
    (reply,) = generate(engine, [prompt], temperature=1.0, seed=4)
    with torch.inference_mode():
        logits = reference(torch.tensor([[*prompt, *reply.tokens]])).logits[0].log_softmax(-1)
    expected = [float(logits[len(prompt) - 1 + at, token]) for at, token in enumerate(reply.tokens)]
    assert reply.logprobs == pytest.approx(expected, abs=1e-4)


def test_the_same_seed_draws_the_same_reply_whatever_it_is_batched_with(engine: Engine) -> None:
    prompt = encode(engine, 30, seed=9)
    (alone,) = generate(engine, [prompt], temperature=1.0, seed=7)
    crowd = [encode(engine, 12, seed=seed) for seed in range(5)]
    *_, again = generate(engine, [*crowd, prompt], temperature=1.0, seed=7)
    (other,) = generate(engine, [prompt], temperature=1.0, seed=8)
    assert again.tokens == alone.tokens
    assert other.tokens != alone.tokens


def test_a_sequence_cancelled_while_it_waits_or_runs_frees_its_slot(engine: Engine) -> None:
    told: queue.SimpleQueue[Update] = queue.SimpleQueue()
    sequences = [
        Sequence(
            prompt=np.array(encode(engine, 20, seed=seed), dtype=np.int32),
            sampling=SamplingParameters(max_tokens=400, temperature=0.0),
            tokenizer=engine.tokenizer.backend_tokenizer,
            listen=told.put,
        )
        for seed in range(20)
    ]
    engine.submit("base", sequences)
    for sequence in sequences:
        sequence.cancelled = True
    assert {told.get(timeout=60).finish_reason for _ in sequences} == {"cancelled"}
    assert len(generate(engine, [encode(engine, 20, seed=3)])[0].tokens) > 0
    assert engine.load().active == engine.load().waiting == 0


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_an_engine_that_fails_says_so_and_leaves_no_request_waiting(engine: Engine) -> None:
    failures: list[str] = []
    engine.on_failure = lambda: failures.append("failed")
    beyond = [engine.vocabulary]  # the HTTP side refuses such a prompt
    assert [update.finish_reason for update in generate(engine, [beyond])] == ["cancelled"]
    assert failures == ["failed"]
    assert engine.failed


def test_positions_that_depend_on_the_longest_prompt_of_a_batch_are_never_reached(
    tiny_base: Path, tmp_path: Path
) -> None:
    base = write_base(tiny_base, tmp_path, architecture="phi3")

    def stretch(document: dict[str, Any]) -> None:
        factors = {"short_factor": [1.0] * 4, "long_factor": [4.0] * 4}
        document["original_max_position_embeddings"] = 64
        document["rope_parameters"] = {"rope_type": "longrope", "rope_theta": 10000.0, **factors}

    edit_json(base / "config.json", stretch)
    assert Engine(InferenceSettings(model=base, threads=1, dtype="float32")).max_length == 64


@pytest.mark.parametrize("engine", [{"threads": 2}], indirect=True)
def test_two_models_asked_at_once_each_reply_as_if_alone_and_their_tokens_are_counted(
    engine: Engine, tiny_base: Path, tmp_path: Path
) -> None:
    adapted = adapted_model(tiny_base, LoraSettings(rank=2), None, torch.float32)
    for name, weight in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.5)
    adapted.save_pretrained(str(tmp_path))
    engine.load_adapter("ratchet-9", tmp_path)
    prompts = [encode(engine, 10 + seed, seed) for seed in range(6)]
    models = ("base", "ratchet-9")
    alone = [[reply.tokens for reply in generate(engine, prompts, model)] for model in models]
    assert alone[0] != alone[1]
    before = engine.load()
    with ThreadPoolExecutor(2) as clients:
        together = list(clients.map(lambda model: generate(engine, prompts, model, max_tokens=60), models))
    assert [[reply.tokens[:12] for reply in replies] for replies in together] == alone
    drawn = sum(len(reply.tokens) for replies in together for reply in replies)
    assert engine.load().decoded == before.decoded + drawn
    engine.unload_adapter("ratchet-9")
    assert engine.load().decoded == before.decoded + drawn


@pytest.mark.parametrize("engine", [{"threads": 2}], indirect=True)
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_model_that_fails_beside_another_ends_the_engine_and_leaves_no_request_waiting(
    engine: Engine, tiny_base: Path, tmp_path: Path
) -> None:
    adapted_model(tiny_base, LoraSettings(rank=2), None, torch.float32).save_pretrained(str(tmp_path))
    engine.load_adapter("ratchet-9", tmp_path)
    # Never stopped by a token, the other is at work until the end.
    endless = {"max_tokens": 400, "stop_tokens": frozenset[int]()}
    with ThreadPoolExecutor(1) as clients:
        other = clients.submit(generate, engine, [encode(engine, 20, seed=3)], "ratchet-9", **endless)
        until(lambda: engine.load().active > 0)
        assert [update.finish_reason for update in generate(engine, [[engine.vocabulary]])] == ["cancelled"]
        assert [update.finish_reason for update in other.result(timeout=60)] == ["cancelled"]
    assert engine.failed


@pytest.mark.parametrize("damage", ["weights", "config", "part"])
def test_an_adapter_that_does_not_fit_is_refused_and_its_name_stays_free(
    engine: Engine, tiny_base: Path, tmp_path: Path, damage: str
) -> None:
    adapted = adapted_model(tiny_base, LoraSettings(rank=2), None, torch.float32)
    adapted.save_pretrained(str(tmp_path))
    weights, config = tmp_path / "adapter_model.safetensors", tmp_path / "adapter_config.json"
    whole = weights.read_bytes()
    if damage == "weights":
        weights.write_bytes(b"x")
    else:
        change = {"peft_type": "NOPE"} if damage == "config" else {"target_modules": ["q_proj"]}
        kept = config.read_text()
        edit_json(config, lambda document: document.update(change))
    with pytest.raises(RequestRefusedError, match=str(tmp_path)) as refused:
        engine.load_adapter("ratchet-9", tmp_path)
    assert refused.value.status == 400
    weights.write_bytes(whole)
    if damage != "weights":
        config.write_text(kept)
    engine.load_adapter("ratchet-9", tmp_path)
