"""Requests while adapters change: how many fail, and how long they take before, during and after.

`python -m benchmarks.swaps [--servers N] [--vllm] [--clients C] [--swaps S] [--seconds T] [--json]` has C clients ask
the gateway without a pause, half of them with streams, over N servers of a tiny model: for T seconds as it is,
while S promotions and rollbacks follow each other, for T seconds after, and, with more than one server, from when one
is killed until it serves again. Replies are greedy, so that one of another adapter than it names shows.

The bare limit is the same load without a change; `ratio` is the requests per second during the changes over those
before. The servers are the embedded one, or, with `--vllm`, the one that `make vllm` installs.
"""

import argparse
import asyncio
import json
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import httpx

from daemon.registry.registry import Registry
from daemon.serving.role import serve
from daemon.serving.settings import CaptureSettings, PromotionSettings, ServingSettings
from streams.kafka.settings import KafkaSettings
from streams.runtime.processes import free_port
from tests.builders.adapters import add_random_adapter
from tests.builders.base_models import write_tiny_llama
from tests.builders.engines import Engine, VllmEngine

NOWHERE = "127.0.0.1:9"
WAIT_S = 120
CHAT = {
    "model": "assistant",
    "messages": [{"role": "user", "content": "open the fridge"}],
    "temperature": 0,
    "max_tokens": 8,
}


@dataclass(frozen=True, slots=True)
class Call:
    """A request: when it ended, seconds until the reply or the first part of its stream, and what came."""

    ended: float
    seconds: float
    streamed: bool
    model: str
    text: str
    error: str = ""


@dataclass
class Load:
    """Clients that ask without a pause, and their calls."""

    address: str
    calls: list[Call] = field(default_factory=list)
    stopping: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(self, clients: int) -> None:
        limits = httpx.Limits(max_connections=clients, max_keepalive_connections=clients)
        async with httpx.AsyncClient(base_url=self.address, timeout=120, limits=limits) as http:
            await asyncio.gather(*(self._client(http, number) for number in range(clients)))

    async def _client(self, http: httpx.AsyncClient, number: int) -> None:
        streamed = number % 2 == 1
        body, headers = CHAT | {"stream": streamed}, {"x-ratchet-conversation": f"client-{number}"}
        while not self.stopping.is_set():
            began, first, parts, error = time.perf_counter(), 0.0, [], ""
            async with http.stream("POST", "/v1/chat/completions", json=body, headers=headers) as answer:
                async for part in answer.aiter_text():
                    first = first or time.perf_counter() - began
                    parts.append(part)
            content = "".join(parts)
            model, text = "", ""
            if answer.is_success:
                model, text, error = _read(content, streamed)
            else:
                error = f"{answer.status_code}: {content[:200]}"
            seconds = first if streamed else time.perf_counter() - began
            self.calls.append(Call(time.perf_counter(), seconds, streamed, model, text, error))
            if error:
                await asyncio.sleep(0.1)

    def between(self, begin: float, end: float) -> list[Call]:
        return [call for call in self.calls if begin <= call.ended < end]


def _read(content: str, streamed: bool) -> tuple[str, str, str]:
    """The model that a reply names, its text, and its error."""
    if not streamed:
        reply = json.loads(content)
        return reply["model"], reply["choices"][0]["message"]["content"], ""
    events = [line.removeprefix("data: ") for line in content.splitlines() if line.startswith("data: ")]
    if not events or events[-1] != "[DONE]":
        return "", "", f"the stream broke off: {content[-200:]}"
    chunks = [json.loads(event) for event in events[:-1]]
    names = {chunk["model"] for chunk in chunks}
    text = "".join(choice["delta"].get("content") or "" for chunk in chunks for choice in chunk["choices"])
    return (names.pop(), text, "") if len(names) == 1 else ("", "", f"one stream named {names}")


def gateway(port: int, home: Path, first: str, others: tuple[str, ...]) -> None:
    """Serve the serve role, with nothing else of Ratchet around it."""
    settings = ServingSettings(
        port=port,
        home=home,
        inference_url=first,
        replica_urls=others,
        reconcile_s=0.2,
        promotion=PromotionSettings(hold_after_rollback=False),
        capture=CaptureSettings(enabled=False),
    )
    asyncio.run(serve(settings, f"http://{NOWHERE}", KafkaSettings(bootstrap=NOWHERE), asyncio.Event()))


@contextmanager
def serving(home: Path, engines: list[Engine]) -> Iterator[str]:
    """A serve role in a process of its own, before the engines; its address."""
    port = free_port()
    urls = [engine.url for engine in engines]
    process = get_context("spawn").Process(target=gateway, args=(port, home, urls[0], tuple(urls[1:])))
    process.start()
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.join()


async def rotation(control: httpx.AsyncClient) -> None:
    """Return when all servers take requests."""
    deadline = time.monotonic() + WAIT_S
    while time.monotonic() < deadline:
        try:
            status = (await control.get("/status")).json()
        except httpx.TransportError:
            status = {}
        if status.get("served") and not any(replica["reason"] for replica in status["replicas"]):
            return
        await asyncio.sleep(0.1)
    raise SystemExit(f"not all servers serve after {WAIT_S} s: {status}")


async def change(control: httpx.AsyncClient, path: str, **body: str) -> float:
    """Have the champion changed; seconds that it took."""
    began = time.perf_counter()
    answer = await control.post(path, json={"reason": "a benchmark", "actor": "benchmark", **body})
    if not answer.is_success:
        raise SystemExit(f"{path} answered {answer.status_code}: {answer.text}")
    return time.perf_counter() - began


async def measure(
    address: str, engines: list[Engine], adapters: list[str], clients: int, seconds: float
) -> dict[str, Any]:
    load = Load(address)
    phases: dict[str, tuple[float, float]] = {}
    found: dict[str, Any] = {"clients": clients, "servers": len(engines), "swaps": 2 * len(adapters)}
    async with httpx.AsyncClient(base_url=address, timeout=120) as control:
        await rotation(control)
        running = asyncio.create_task(load.run(clients))
        await asyncio.sleep(seconds)  # warms up
        began = time.perf_counter()
        await asyncio.sleep(seconds)
        phases["before"] = (began, began := time.perf_counter())
        swaps = []
        for adapter in adapters:
            swaps.append(await change(control, "/promote", digest=adapter))
            swaps.append(await change(control, "/rollback"))
        phases["during"] = (began, began := time.perf_counter())
        await asyncio.sleep(seconds)
        phases["after"] = (began, began := time.perf_counter())
        found["swap_seconds"] = {"median": round(median(swaps), 3), "worst": round(max(swaps), 3)}
        if len(engines) > 1:
            engines[1].kill()
            await asyncio.sleep(seconds)
            restarted = time.perf_counter()
            await asyncio.to_thread(engines[1].start)
            answers = time.perf_counter()
            await rotation(control)
            found["restart_seconds"] = round(answers - restarted, 2)
            found["recovery_seconds"] = round(time.perf_counter() - answers, 2)
            phases["one killed"] = (began, time.perf_counter())
        load.stopping.set()
        await running
    for name, (begin, end) in phases.items():
        found[name] = summary(load.between(begin, end), end - begin)
    texts = defaultdict(set)
    for call in load.calls:
        texts[call.model].add(call.text)
    failed = [call.error for call in load.calls if call.error]
    found |= {
        "requests": len(load.calls),
        "failed": len(failed),
        "errors": sorted(set(failed))[:5],
        "adapters": len(texts.keys() - {""}),
        "mixed": sum(len(each) > 1 for name, each in texts.items() if name),
        "ratio": round(found["during"]["rate"] / found["before"]["rate"], 3),
    }
    return found


def summary(calls: list[Call], seconds: float) -> dict[str, float]:
    """Requests per second, those that failed, and the milliseconds of whole replies and of streams' first parts."""
    shown: dict[str, float] = {
        "rate": round(len(calls) / seconds, 2),
        "failed": sum(bool(call.error) for call in calls),
    }
    for name, streamed in (("whole", False), ("first_token", True)):
        took = [call.seconds * 1000 for call in calls if call.streamed is streamed and not call.error]
        if len(took) > 1:
            shown[f"{name}_p50_ms"] = round(median(took), 1)
            shown[f"{name}_p99_ms"] = round(quantiles(took, n=100)[98], 1)
    return shown


def run(options: argparse.Namespace) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder) / "base"
        base.mkdir()
        # vLLM has no attention for smaller heads on a CPU.
        write_tiny_llama(base, hidden=128, heads=2, key_heads=1)
        registry = Registry(Path(folder) / "home")
        adapters = [add_random_adapter(base, seed, within=registry) for seed in range(options.swaps // 2)]
        kind = VllmEngine if options.vllm else Engine
        engines = [kind(base, Path(folder) / f"engine-{number}.log") for number in range(options.servers)]
        try:
            for engine in engines:
                engine.start()
            with serving(registry.home, engines) as address:
                return asyncio.run(measure(address, engines, adapters, options.clients, options.seconds))
        finally:
            for engine in engines:
                engine.kill()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--servers", type=int, default=2, help="inference servers behind the gateway")
    parser.add_argument("--vllm", action="store_true", help="vLLM instead of the embedded server")
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--swaps", type=int, default=20, help="promotions and rollbacks together")
    parser.add_argument("--seconds", type=float, default=10.0, help="how long each phase without a change lasts")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    found = run(options)
    print(json.dumps(found) if options.json else "\n".join(f"{name:>20} {value}" for name, value in found.items()))


if __name__ == "__main__":
    main()
