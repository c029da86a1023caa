"""Tokens per second of the embedded inference server, a bare batched `generate`, and other servers, for the same chats.

    python -m benchmarks.inference [--model FOLDER] [--adapter FOLDER] [--chats 64] [--turns 1] [--tokens 32]
        [--prefix 0] [--peer NAME=URL ...] [--json]

All get the same chats and draw the same number of tokens greedily, one after the other. `generate` runs in this
process; ours is started on as many threads, and servers are asked over HTTP. With `--prefix` the chats share a system
prompt of so many words, as those of one agent do. With several turns each chat goes on with its reply and a new
observation: servers keep what they have computed, `generate` cannot. A peer is any server with OpenAI's API that takes
`ignore_eos`, such as vLLM's and llama.cpp's, started beforehand with the same model on as many threads; its first model
is asked, or that of NAME=URL=MODEL.
"""

import argparse
import asyncio
import contextlib
import json
import random
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import httpx
import torch
from rich.console import Console
from transformers import AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerFast

from daemon.config import Settings
from learners.base_model import resolve_base
from learners.chat import ChatTokenizer
from learners.precision import compute_dtype
from learners.settings import EMBEDDED
from ratchet_client.messages import Message
from streams.runtime.processes import free_port

WORDS = (
    "you see a kitchen table an oak drawer the fridge is closed take key from shelf there is nothing of interest here "
    "your inventory is empty put the wet towel into washing machine score open"
)
Chats = list[list[Message]]
# The sides that are always measured.
_OURS, _LIMIT = "ratchet", "generate"


@dataclass(frozen=True, slots=True)
class Result:
    """Rates are drawn tokens per second of wall time, prompts included; `prompt_tokens` are the last turn's.

    `ratio` is the server's rate over that of `generate`, `ratio_peers` that over each peer's.
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
    peer_tokens_per_s: dict[str, float]
    ratio_peers: dict[str, float]


@dataclass(frozen=True, slots=True)
class Peer:
    """A server with OpenAI's API, and the model of it that is asked."""

    name: str
    url: str
    model: str

    @classmethod
    def of(cls, text: str) -> "Peer":
        """Read NAME=URL or NAME=URL=MODEL; the server is asked for what is not said."""
        name, url, *model = text.split("=", 2)
        return cls(name, url, model[0] if model else httpx.get(f"{url}/v1/models").json()["data"][0]["id"])


def new_chats(count: int, seed: int, prefix: int = 0) -> Chats:
    """Chats of 60 to 300 tokens with a common system prompt, which has `prefix` words more."""
    draw = random.Random(seed)
    rules = _words(random.Random(-1), prefix, prefix)
    system = Message(role="system", content=f"You are playing a text game. Reply with one action. {rules}".strip())
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


def by_server(peer: Peer, turns: list[Chats], tokens: int) -> float:
    """Seconds that the server takes for all turns, one after the other."""

    async def ask(http: httpx.AsyncClient, chat: list[Message]) -> None:
        body = {
            "model": peer.model,
            "messages": [{"role": message.role, "content": message.content} for message in chat],
            "max_tokens": tokens,
            "temperature": 0,
            "ignore_eos": True,
        }
        answer = (await http.post("/v1/chat/completions", json=body)).raise_for_status().json()
        if answer["usage"]["completion_tokens"] != tokens:
            raise RuntimeError(f"{peer.name} drew {answer['usage']['completion_tokens']} tokens, not {tokens}")

    async def play() -> float:
        limits = httpx.Limits(max_connections=None)
        async with httpx.AsyncClient(base_url=peer.url, timeout=None, limits=limits) as http:
            start = time.perf_counter()
            for chats in turns:
                await asyncio.gather(*(ask(http, chat) for chat in chats))
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


@dataclass(frozen=True, slots=True)
class Amounts:
    """`prefix` is in words, `tokens` are drawn for each reply."""

    chats: int
    turns: int
    tokens: int
    prefix: int
    repeats: int
    threads: int

    def script(self, repeat: int) -> list[Chats]:
        """The chats of every turn, with new words for each repeat: only the system prompt is known from the last."""
        script = [new_chats(self.chats, repeat, self.prefix)]
        for turn in range(1, self.turns):
            # The replies are fixed beforehand, so that all sides read the same chats.
            script.append(go_on(script[-1], ["take the key"] * self.chats, seed=1000 * turn + repeat))
        return script


@contextlib.contextmanager
def serving(folder: Path, adapter: Path | None, amounts: Amounts) -> Iterator[Peer]:
    """Our server as the supervisor starts it, with the adapter loaded if there is one."""
    port = free_port()
    command = (
        *(sys.executable, "-m", "daemon.inference", "--model", str(folder), "--port", str(port)),
        *("--threads", str(amounts.threads), "--slots", str(max(amounts.chats, 2))),
    )
    peer = Peer(_OURS, f"http://127.0.0.1:{port}", "base" if adapter is None else "adapter")
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        try:
            _await_health(peer.url, process)
            if adapter is not None:
                loading = {"lora_name": peer.model, "lora_path": str(adapter)}
                httpx.post(f"{peer.url}/v1/load_lora_adapter", json=loading, timeout=None).raise_for_status()
            yield peer
        finally:
            process.terminate()


def _await_health(url: str, process: subprocess.Popen[bytes]) -> None:
    while process.poll() is None:
        with contextlib.suppress(httpx.TransportError):
            if httpx.get(f"{url}/health").is_success:
                return
        time.sleep(0.1)
    raise RuntimeError(f"our server ended with status {process.returncode}")


def measure(folder: Path, adapter: Path | None, amounts: Amounts, peers: Sequence[Peer]) -> Result:
    """The best of the repeats on each side, since other processes only ever make a run slower."""
    torch.set_num_threads(amounts.threads)
    dtype = compute_dtype("auto")
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).eval()
    tokens, tokenizer = amounts.tokens, ChatTokenizer(folder).tokenizer
    seconds: dict[str, float] = defaultdict(lambda: float("inf"))
    with serving(folder, adapter, amounts) as ours:
        servers = [ours, *peers]
        for repeat in range(amounts.repeats):
            script = amounts.script(repeat)
            for server in servers:
                seconds[server.name] = min(seconds[server.name], by_server(server, script, tokens))
            seconds[_LIMIT] = min(seconds[_LIMIT], by_generate(model, tokenizer, script, tokens))
    drawn = amounts.chats * amounts.turns * tokens
    names = [peer.name for peer in peers]
    return Result(
        dtype=str(dtype).removeprefix("torch."),
        threads=amounts.threads,
        chats=amounts.chats,
        turns=amounts.turns,
        prompt_tokens=sum(len(tokenizer(_render(tokenizer, chat)).input_ids) for chat in script[-1]),
        new_tokens=drawn,
        server_tokens_per_s=round(drawn / seconds[_OURS], 1),
        generate_tokens_per_s=round(drawn / seconds[_LIMIT], 1),
        ratio=round(seconds[_LIMIT] / seconds[_OURS], 2),
        peer_tokens_per_s={name: round(drawn / seconds[name], 1) for name in names},
        ratio_peers={name: round(seconds[name] / seconds[_OURS], 2) for name in names},
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="folder of a Hugging Face causal model; else the embedded one")
    parser.add_argument("--adapter", type=Path, help="folder of a LoRA adapter of it that our server is asked for")
    parser.add_argument("--prefix", type=int, default=0, help="words of a system prompt that the chats share")
    parser.add_argument("--peer", type=Peer.of, action="append", default=[], help="NAME=URL or NAME=URL=MODEL")
    parser.add_argument("--chats", type=int, default=64)
    parser.add_argument("--turns", type=int, default=1)
    parser.add_argument("--tokens", type=int, default=32, help="drawn for each reply")
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    options = parser.parse_args()
    amounts = Amounts(
        chats=options.chats,
        turns=options.turns,
        tokens=options.tokens,
        prefix=options.prefix,
        repeats=options.repeats,
        threads=options.threads,
    )
    folder = options.model or resolve_base(EMBEDDED, Settings.read().home)
    result = measure(folder, options.adapter, amounts, options.peer)
    if options.json:
        print(json.dumps(asdict(result)))
    else:
        Console().print(result)


if __name__ == "__main__":
    main()
