"""The server over real HTTP: what OpenAI clients and vLLM's adapter endpoints promise."""

import asyncio
import contextlib
import json
import math
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from ratchet_client.messages import Message
from streams.errors import PolicyError
from streams.policy.client import PolicyClient, Sampling
from streams.runtime.processes import free_port
from tests.waiting import eventually, until

CHAT = [{"role": "system", "content": "You play a game."}, {"role": "user", "content": "You see a closed fridge."}]
PROMPT = "open the fridge and take the apple"


def chat(http: httpx.Client, **fields: Any) -> httpx.Response:
    return http.post("/v1/chat/completions", json={"model": "base", "messages": CHAT, "max_tokens": 8, **fields})


def greedy(http: httpx.Client, model: str = "base", **fields: Any) -> str:
    answer = chat(http, model=model, temperature=0, **fields)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["choices"][0]["message"]["content"])


def plain_logprobs(tiny_base: Path, adapter: Path | None, text: str) -> list[float]:
    """By stock Transformers, with the adapter beside the base and not merged."""
    model: Any = AutoModelForCausalLM.from_pretrained(tiny_base, dtype=torch.float32)
    if adapter is not None:
        model = PeftModel.from_pretrained(model, str(adapter))
    ids = AutoTokenizer.from_pretrained(tiny_base)(text, return_tensors="pt").input_ids
    with torch.inference_mode():
        logits = model.eval()(ids).logits[0, :-1].log_softmax(-1)
    return [float(value) for value in logits.gather(-1, ids[0, 1:, None])[:, 0]]


def test_a_chat_reply_is_complete(http: httpx.Client) -> None:
    answer = chat(http, temperature=0, logprobs=True).json()
    choice = answer["choices"][0]
    assert answer["model"] == "base"
    assert choice["message"]["role"] == "assistant"
    assert choice["finish_reason"] in {"stop", "length"}
    assert len(choice["logprobs"]["content"]) == answer["usage"]["completion_tokens"] <= 8
    assert all(token["logprob"] <= 0 for token in choice["logprobs"]["content"])


def test_it_is_alive_and_ready_while_the_engine_is(http: httpx.Client) -> None:
    assert http.get("/healthz").text == "ok\n"
    assert http.get("/readyz").json() == {"ready": True, "reasons": {}}


def test_samples_differ_and_a_seed_draws_them_again(http: httpx.Client) -> None:
    first, second = (
        [choice["message"]["content"] for choice in chat(http, n=4, seed=3).json()["choices"]] for _ in range(2)
    )
    assert first == second
    assert len(set(first)) > 1
    assert len({choice["message"]["content"] for choice in chat(http, n=3, temperature=0).json()["choices"]}) == 1


def test_a_very_small_top_p_is_greedy(http: httpx.Client) -> None:
    assert chat(http, temperature=1.0, top_p=1e-6).json()["choices"][0]["message"]["content"] == greedy(http)


def test_a_stop_string_ends_the_reply_before_it(http: httpx.Client) -> None:
    whole = greedy(http, max_tokens=20)
    stop = whole[len(whole) // 2 :][:3]
    answer = chat(http, temperature=0, max_tokens=20, stop=stop).json()["choices"][0]
    assert answer["message"]["content"] == whole[: whole.index(stop)]
    assert answer["finish_reason"] == "stop"


@pytest.mark.parametrize("stop", [[], ["zz", "e"]])
def test_a_streamed_reply_is_the_whole_one_in_pieces(http: httpx.Client, stop: list[str]) -> None:
    body = {"model": "base", "messages": CHAT, "max_tokens": 20, "temperature": 0, "stop": stop, "stream": True}
    with http.stream("POST", "/v1/chat/completions", json=body) as answer:
        lines = [line.removeprefix("data: ") for line in answer.iter_lines() if line]
    assert lines[-1] == "[DONE]"
    choices = [json.loads(line)["choices"][0] for line in lines[:-1]]
    assert choices[0]["delta"]["role"] == "assistant"
    assert "".join(choice["delta"].get("content", "") for choice in choices) == greedy(http, max_tokens=20, stop=stop)
    assert choices[-1]["finish_reason"] in {"stop", "length"}
    assert all(choice["finish_reason"] is None for choice in choices[:-1])


def test_a_continued_chat_tells_how_much_it_reused(http: httpx.Client) -> None:
    first = chat(http, temperature=0).json()
    reply = first["choices"][0]["message"]
    messages = [*CHAT, reply, {"role": "user", "content": "You open it."}]
    usage = chat(http, temperature=0, messages=messages).json()["usage"]
    # All of the first prompt, but for a last token that may be written together with the reply's first.
    assert usage["prompt_tokens_details"]["cached_tokens"] >= first["usage"]["prompt_tokens"] - 1


async def test_prompt_logprobs_are_those_of_plain_transformers(server: str, tiny_base: Path) -> None:
    async with PolicyClient(server) as policy:
        served = await policy.prompt_logprobs("base", PROMPT)
    assert served == pytest.approx(plain_logprobs(tiny_base, None, PROMPT), abs=1e-4)


async def test_a_chat_with_reasoning_in_it_is_taken(server: str) -> None:
    thought = Message(role="assistant", content="look", reasoning_content="Where am I?")
    chat = [Message(role="user", content="Go."), thought, Message(role="user", content="A fridge.")]
    async with PolicyClient(server) as policy:
        (reply,) = await policy.chat("base", chat, Sampling(max_tokens=4))
    assert reply.model == "base"


@pytest.mark.slow
async def test_hundreds_of_chats_at_once_are_all_answered(server: str) -> None:
    chats = [[Message(role="user", content=f"You are in room {room % 150}.")] for room in range(300)]
    async with PolicyClient(server) as policy:
        replies = await asyncio.gather(*(policy.chat("base", chat, Sampling(max_tokens=4)) for chat in chats))
    assert [a[0].message for a in replies[:150]] == [b[0].message for b in replies[150:]]


@pytest.mark.slow
async def test_an_adapter_loads_while_the_base_serves_and_changes_what_it_should(
    server: str, tiny_base: Path, tiny_adapter: Path
) -> None:
    async with PolicyClient(server) as policy:
        before = await policy.prompt_logprobs("base", PROMPT)
        talk = [
            asyncio.create_task(policy.chat("base", [Message(role="user", content=f"room {n}")], Sampling(stop=())))
            for n in range(40)
        ]
        await policy.load_adapter("ratchet-1-aaaa", str(tiny_adapter))
        assert all(replies[0].message.content is not None for replies in await asyncio.gather(*talk))
        adapted = await policy.prompt_logprobs("ratchet-1-aaaa", PROMPT)
        listed = {model.name: model for model in await policy.models()}
        assert listed["ratchet-1-aaaa"].root == str(tiny_adapter)
        assert listed["ratchet-1-aaaa"].parent == "base"
        assert await policy.prompt_logprobs("base", PROMPT) == pytest.approx(before, abs=1e-5)
    assert adapted == pytest.approx(plain_logprobs(tiny_base, tiny_adapter, PROMPT), abs=1e-3)
    assert max(abs(a - b) for a, b in zip(adapted, before, strict=True)) > 0.1


@pytest.mark.slow
async def test_unloading_waits_for_replies_in_flight_and_the_name_is_never_used_again(
    server: str, tiny_adapter: Path
) -> None:
    async with PolicyClient(server) as policy:
        await policy.load_adapter("ratchet-2-bbbb", str(tiny_adapter))
        long = Sampling(max_tokens=300, stop=(), temperature=1.0, seed=1)
        talk = asyncio.create_task(policy.chat("ratchet-2-bbbb", [Message(role="user", content="go")], long))
        async with httpx.AsyncClient(base_url=server) as http:

            async def in_flight() -> bool:
                return bool((await http.get("/stats")).json()["active"])

            await eventually(in_flight)
        await policy.unload_adapter("ratchet-2-bbbb")
        assert (await talk)[0].model == "ratchet-2-bbbb"
        assert "ratchet-2-bbbb" not in {model.name for model in await policy.models()}
        with pytest.raises(PolicyError, match="404"):
            await policy.chat("ratchet-2-bbbb", [Message(role="user", content="go")], Sampling())
        with pytest.raises(PolicyError, match="never used twice"):
            await policy.load_adapter("ratchet-2-bbbb", str(tiny_adapter))
        with pytest.raises(PolicyError, match="404"):
            await policy.unload_adapter("ratchet-2-bbbb")


@pytest.mark.parametrize(
    ("path", "body", "status", "code"),
    [
        ("chat/completions", {"model": "no one", "messages": CHAT}, 404, "model_not_found"),
        ("chat/completions", {"model": "base", "messages": CHAT, "max_tokens": 600}, 400, "context_length_exceeded"),
        ("chat/completions", {"model": "base", "messages": []}, 400, "invalid_request"),
        ("chat/completions", {"model": "base", "messages": CHAT, "tools": [{}]}, 400, "invalid_request"),
        ("completions", {"model": "base", "prompt": "a " * 600}, 400, "context_length_exceeded"),
        ("completions", {"model": "base", "prompt": "a", "echo": True}, 400, "invalid_request"),
        ("load_lora_adapter", {"lora_name": "x", "lora_path": "/nowhere"}, 400, "bad_adapter"),
        ("load_lora_adapter", {"lora_name": "base", "lora_path": "/nowhere"}, 400, "name_used"),
        ("unload_lora_adapter", {"lora_name": "base"}, 404, "adapter_not_found"),
    ],
)
def test_what_cannot_be_served_is_refused_as_openai_does(
    http: httpx.Client, path: str, body: dict[str, Any], status: int, code: str
) -> None:
    answer = http.post(f"/v1/{path}", json=body)
    assert answer.status_code == status
    assert answer.json()["error"]["code"] == code
    assert answer.json()["error"]["message"]


def test_a_name_whose_load_failed_may_be_used(http: httpx.Client, tiny_adapter: Path) -> None:
    for folder, status in (("/nowhere", 400), (str(tiny_adapter), 200)):
        answer = http.post("/v1/load_lora_adapter", json={"lora_name": "ratchet-3-cccc", "lora_path": folder})
        assert answer.status_code == status


async def test_too_many_requests_at_once_are_refused_and_not_queued_forever(
    server_with: Callable[..., AbstractContextManager[str]],
) -> None:
    with server_with(max_waiting=4) as address:
        async with PolicyClient(address) as policy:
            message = [Message(role="user", content="go")]
            long = Sampling(max_tokens=200, stop=())
            answers = await asyncio.gather(
                *(policy.chat("base", message, long) for _ in range(12)), return_exceptions=True
            )
    refused = [answer for answer in answers if isinstance(answer, PolicyError)]
    assert 0 < len(refused) <= 8
    assert all("429" in str(error) for error in refused)


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_hangs_up_frees_its_slot(http: httpx.Client, server: str, stream: bool) -> None:
    body = {"model": "base", "messages": CHAT, "max_tokens": 450, "temperature": 1.0, "seed": 5, "stream": stream}
    with httpx.Client(base_url=server) as impatient:
        if stream:
            with impatient.stream("POST", "/v1/chat/completions", json=body) as answer:
                next(answer.iter_lines())
        else:
            with pytest.raises(httpx.ReadTimeout):
                impatient.post("/v1/chat/completions", json=body, timeout=0.05)
    drawn = http.get("/stats").json()["decoded"]
    until(lambda: not http.get("/stats").json()["active"])
    assert http.get("/stats").json()["decoded"] - drawn < 450


def start(tiny_base: Path, port: int) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "daemon.inference", "--model", str(tiny_base), "--port", str(port)]
    return subprocess.Popen([*command, "--threads", "1"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)


@contextlib.contextmanager
def client_waiting(address: str, body: dict[str, Any]) -> Iterator[None]:
    """A client, in a thread, that waits for its chat to be answered."""

    def ask() -> None:
        with contextlib.suppress(httpx.TransportError):
            httpx.post(f"{address}/v1/chat/completions", json=body, timeout=60)

    thread = threading.Thread(target=ask)
    thread.start()
    yield
    thread.join()


@pytest.mark.nightly
@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_process_cleanly_though_replies_are_under_way(tiny_base: Path, signum: int) -> None:
    port = free_port()
    process = start(tiny_base, port)
    address = f"http://127.0.0.1:{port}"
    until(lambda: httpx.get(f"{address}/health").is_success, "it is healthy", errors=(httpx.TransportError,))
    body = {"model": "base", "messages": CHAT, "max_tokens": 1500, "temperature": 1.0, "n": 20}
    with client_waiting(address, body):
        until(lambda: httpx.get(f"{address}/stats").json()["active"])
        os.kill(process.pid, signum)
        output, _ = process.communicate(timeout=20)
    assert process.returncode == 0
    assert output == b""


@pytest.mark.slow
def test_the_process_tells_in_the_form_of_its_log_why_it_cannot_start(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "daemon.inference", "--model", str(tmp_path), "--log-format", "json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    last = json.loads(done.stderr.splitlines()[-1])
    assert (last["event"], last["level"]) == ("ended by an error", "error")
    assert "holds no model" in last["error"]


@pytest.mark.nightly
def test_the_process_tells_what_is_wrong_with_its_command_line(tmp_path: Path) -> None:
    for arguments, status, words in (
        (["--model", str(tmp_path)], 1, "holds no model"),
        (["--model", str(tmp_path), "--port", "99999999"], 2, "--port"),
    ):
        done = subprocess.run(
            [sys.executable, "-m", "daemon.inference", *arguments], capture_output=True, text=True, timeout=60
        )
        assert done.returncode == status
        assert words in done.stderr
        assert len(done.stderr.strip().splitlines()) == 1


def test_every_drawn_token_has_a_finite_log_probability(http: httpx.Client) -> None:
    answer = chat(http, temperature=2.0, n=8, logprobs=True, seed=11).json()
    values = [token["logprob"] for choice in answer["choices"] for token in choice["logprobs"]["content"]]
    assert all(math.isfinite(value) for value in values)
