"""Tokens per second of the embedded inference server against a bare batched `generate` of the same requests.

    python -m benchmarks.inference [--model FOLDER] [--chats 64] [--turns 1] [--tokens 32] [--json]

Both sides get the same chats, draw the same number of tokens greedily, and run in this process, one after the other, on
the same threads; the server's side goes through HTTP. With several turns each chat goes on with its reply and a new
observation, as an agent's does: the server reuses what it has computed, `generate` cannot.
"""

import argparse
import asyncio
import contextlib
import json
import random
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import uvicorn
from rich.console import Console
from transformers import AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerFast

from daemon.config import Settings
from daemon.inference.engine import Engine
from daemon.inference.server import create_app
from daemon.inference.settings import InferenceSettings
from learners.base_model import resolve_base
from learners.precision import compute_dtype
from learners.settings import EMBEDDED
from streams.messages import Message
from streams.policy.client import PolicyClient, Sampling

WORDS = (
    "you see a kitchen table an oak drawer the fridge is closed take key from shelf there is nothing of interest here "
    "your inventory is empty put the wet towel into washing machine score open"
)
Chats = list[list[Message]]


@dataclass(frozen=True, slots=True)
class Result:
    """Rates are drawn tokens per second of wall time, prompts included; `prompt_tokens` are the last turn's.

    `ratio` is the server's rate over that of `generate`.
    """

    dtype: str
    threads: int
    chats: int
    turns: int
    prompt_tokens: int
    new_tokens: int
    server_tokens_per_s: float
    generate_tokens_per_s: float
    ratio: float


def new_chats(count: int, seed: int) -> Chats:
    """Chats of 60 to 300 tokens with a common system prompt."""
    draw = random.Random(seed)
    system = Message(role="system", content="You are playing a text game. Reply with one action.")
    return [[system, Message(role="user", content=_words(draw, 40, 250))] for _ in range(count)]


def go_on(chats: Chats, replies: list[str], seed: int) -> Chats:
    """Each chat with its reply and a new observation of 10 to 40 tokens."""
    draw = random.Random(seed)
    return [
        [*chat, Message(role="assistant", content=reply), Message(role="user", content=_words(draw, 8, 35))]
        for chat, reply in zip(chats, replies, strict=True)
    ]


def _words(draw: random.Random, least: int, most: int) -> str:
    return " ".join(draw.choices(WORDS.split(), k=draw.randint(least, most)))


def by_server(address: str, turns: list[Chats], tokens: int) -> float:
    """Seconds that the server takes for all turns, one after the other."""

    async def play() -> float:
        async with PolicyClient(address) as policy:
            sampling = Sampling(max_tokens=tokens, stop=())
            start = time.perf_counter()
            for chats in turns:
                await asyncio.gather(*(policy.chat("base", chat, sampling) for chat in chats))
            return time.perf_counter() - start

    return asyncio.run(play())


def by_generate(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, turns: list[Chats], tokens: int) -> float:
    """Seconds that `generate` takes for all turns, each one left-padded batch."""
    tokenizer.padding_side = "left"
    tokenizer.pad_token = tokenizer.eos_token
    generate = model.generate
    assert callable(generate)
    start = time.perf_counter()
    for chats in turns:
        texts = [_render(tokenizer, chat) for chat in chats]
        inputs = tokenizer(texts, return_tensors="pt", padding=True, add_special_tokens=False)
        generate(
            **inputs,
            max_new_tokens=tokens,
            min_new_tokens=tokens,
            do_sample=False,
            pad_token_id=tokenizer.pad_token_id,
        )
    return time.perf_counter() - start


def _render(tokenizer: PreTrainedTokenizerFast, chat: list[Message]) -> str:
    messages = [message.model_dump() for message in chat]
    return str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))


@contextlib.contextmanager
def serving(engine: Engine) -> Iterator[str]:
    """The server in a thread of this process, on a free port; yields its address."""
    # So that the same number of tokens is drawn on both sides.
    engine.stop_tokens = frozenset()
    server = uvicorn.Server(uvicorn.Config(create_app(engine), port=0, log_config=None, backlog=2048))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            time.sleep(0.01)
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()


def measure(folder: Path, *, chats: int, turns: int, tokens: int, repeats: int, threads: int) -> Result:
    """The best of `repeats` on each side, since other processes only ever make a run slower."""
    torch.set_num_threads(threads)
    dtype = compute_dtype("auto")
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).eval()
    engine = Engine(InferenceSettings(model=folder, threads=threads, slots=max(chats, 2)))
    server_s = generate_s = float("inf")
    with serving(engine) as address:
        for repeat in range(repeats):
            # New words for each repeat: nothing but the system prompt is in the cache from the last one.
            script = [new_chats(chats, seed=repeat)]
            for turn in range(1, turns):
                # The replies are fixed beforehand, so that both sides read the same chats.
                script.append(go_on(script[-1], ["take the key"] * chats, seed=1000 * turn + repeat))
            server_s = min(server_s, by_server(address, script, tokens))
            generate_s = min(generate_s, by_generate(model, engine.tokenizer, script, tokens))
    prompt_tokens = sum(len(engine.tokenizer(_render(engine.tokenizer, chat)).input_ids) for chat in script[-1])
    drawn = chats * turns * tokens
    return Result(
        dtype=str(dtype).removeprefix("torch."),
        threads=threads,
        chats=chats,
        turns=turns,
        prompt_tokens=prompt_tokens,
        new_tokens=drawn,
        server_tokens_per_s=round(drawn / server_s, 1),
        generate_tokens_per_s=round(drawn / generate_s, 1),
        ratio=round(generate_s / server_s, 2),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="folder of a Hugging Face causal model; else the embedded one")
    parser.add_argument("--chats", type=int, default=64)
    parser.add_argument("--turns", type=int, default=1)
    parser.add_argument("--tokens", type=int, default=32, help="drawn for each reply")
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    options = parser.parse_args()
    result = measure(
        options.model or resolve_base(EMBEDDED, Settings.read().home),
        chats=options.chats,
        turns=options.turns,
        tokens=options.tokens,
        repeats=options.repeats,
        threads=options.threads,
    )
    if options.json:
        print(json.dumps(asdict(result)))
    else:
        Console().print(result)


if __name__ == "__main__":
    main()
