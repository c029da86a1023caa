"""Costs that the gateway adds to a call: latency, time to the first token, and requests per second.

`python -m benchmarks.gateway [--rounds R] [--seconds S] [--delay-ms D] [--no-litellm] [--json]` asks an engine of a
fixed delay directly, through the serve role (calls recorded, not recorded, and recorded without a log to take them),
and through LiteLLM's proxy, with 1, 32 and 256 clients that each ask again as soon as they have their answer. They take
turns, so that what else the machine does hits all; what is added is the difference of the medians within a round.

The engine is a small ASGI application in a process of its own: a model's own time, and how it varies, would hide what a
proxy costs, so its delay is the bare limit. LiteLLM is installed into `.ratchet/bench-litellm` on first use.
"""

import argparse
import asyncio
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import aiohttp
import uvicorn
import uvloop
from starlette.types import Receive, Scope, Send

from daemon.serving.role import serve
from daemon.serving.settings import CaptureSettings, ServingSettings
from streams.kafka.broker import EmbeddedBroker
from streams.kafka.settings import KafkaSettings
from streams.kafka.topics import create_topics, end_offsets
from streams.runtime.processes import free_port

LITELLM = "litellm[proxy]==1.80.0"
LITELLM_HOME = Path(".ratchet/bench-litellm")
CLIENTS = (1, 32, 256)
START_TIMEOUT_S = 120
NOWHERE = "http://127.0.0.1:9"
MESSAGES = [
    {"role": "system", "content": "You help customers of a shop with their orders. " * 40},
    {"role": "user", "content": "Where is my order 17? " * 10},
]
REPLY = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "created": 1,
    "model": "base",
    "choices": [
        {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "It is sent. " * 20}}
    ],
    "usage": {"prompt_tokens": 500, "completion_tokens": 60, "total_tokens": 560},
}
CHUNK = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "base"}
EVENTS = [
    *(CHUNK | {"choices": [{"index": 0, "delta": {"role": "assistant", "content": "word "}, "finish_reason": None}]},)
    * 16,
    CHUNK | {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]},
]


def engine(port: int, delay_s: float) -> None:
    """Serve the engine: every answer, and the first event of a stream, comes after `delay_s`."""
    whole = json.dumps(REPLY).encode()
    events = [f"data: {json.dumps(event)}\n\n".encode() for event in EVENTS] + [b"data: [DONE]\n\n"]
    models = json.dumps({"object": "list", "data": [{"id": "base", "object": "model", "root": "base", "parent": None}]})

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        body, more = b"", True
        while more:
            message = await receive()
            body, more = body + message.get("body", b""), message.get("more_body", False)
        asks = scope["path"].endswith("/completions")
        streams = asks and b'"stream":true' in body.replace(b" ", b"")
        kind = b"text/event-stream" if streams else b"application/json"
        if asks:
            await asyncio.sleep(delay_s)
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", kind)]})
        for event in events if streams else ():
            await send({"type": "http.response.body", "body": event, "more_body": True})
            await asyncio.sleep(0)
        rest = b"" if streams else whole if asks else models.encode()
        await send({"type": "http.response.body", "body": rest})

    uvicorn.run(app, host="127.0.0.1", port=port, log_level="error", lifespan="off")


def gateway(port: int, inference_url: str, bootstrap: str, captures: bool) -> None:
    """Serve the serve role before the engine, with nothing else of Ratchet around it."""
    with tempfile.TemporaryDirectory() as home:
        capture = CaptureSettings(enabled=captures, flush_s=0)
        settings = ServingSettings(port=port, inference_url=inference_url, home=Path(home), capture=capture)
        role = serve(settings, NOWHERE, KafkaSettings(bootstrap=bootstrap), asyncio.Event())
        uvloop.run(role)


def litellm_command(port: int, inference_url: str, folder: Path) -> list[str]:
    """The command of LiteLLM's proxy with one worker; installs it where it is not there yet."""
    program = LITELLM_HOME / "bin" / "litellm"
    if not program.exists():
        venv.create(LITELLM_HOME, with_pip=True)
        subprocess.run([LITELLM_HOME / "bin" / "pip", "install", "-q", LITELLM], check=True)
    model = {"model": "openai/base", "api_base": f"{inference_url}/v1", "api_key": "none"}
    configuration = folder / "litellm.json"  # JSON is YAML
    configuration.write_text(json.dumps({"model_list": [{"model_name": "assistant", "litellm_params": model}]}))
    return [str(program), "--config", str(configuration), "--port", str(port), "--host", "127.0.0.1"]


@contextmanager
def running(command: list[str], port: int) -> Iterator[str]:
    """A process that listens on `port`; its address."""
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=os.environ | {"LITELLM_LOG": "ERROR"}
    )
    try:
        deadline = time.monotonic() + START_TIMEOUT_S
        while socket.socket().connect_ex(("127.0.0.1", port)):
            if process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"{command[:4]} does not listen on {port}")
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


async def load(address: str, model: str, clients: int, seconds: float, stream: bool) -> list[float]:
    """Seconds of each call, or until the first event of its stream; `clients` ask for `seconds` without a pause."""
    body = json.dumps({"model": model, "messages": MESSAGES, "stream": stream}).encode()
    headers = {"content-type": "application/json", "authorization": "Bearer none"}
    took: list[float] = []
    end = time.perf_counter() + seconds

    async def client(session: aiohttp.ClientSession) -> None:
        while (began := time.perf_counter()) < end:
            async with session.post(f"{address}/v1/chat/completions", data=body, headers=headers) as answer:
                if answer.status != 200:
                    raise SystemExit(f"{address} answered {answer.status}: {await answer.text()}")
                await answer.content.readany()
                if stream:
                    took.append(time.perf_counter() - began)
                await answer.read()
                if not stream:
                    took.append(time.perf_counter() - began)

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        await asyncio.gather(*(client(session) for _ in range(clients)))
    return took


async def ready(address: str, model: str) -> None:
    """Return when the server answers calls."""
    deadline = time.monotonic() + START_TIMEOUT_S
    while True:
        try:
            await load(address, model, 4, 0.5, False)
            await load(address, model, 4, 0.2, True)
            return
        except (SystemExit, aiohttp.ClientError):
            if time.monotonic() > deadline:
                raise
            await asyncio.sleep(0.5)


Measured = dict[str, list[dict[str, float]]]


async def measure(
    targets: dict[str, tuple[str, str]], rounds: int, seconds: float, most_clients: int
) -> dict[str, Measured]:
    """Per number of clients, or `stream` for 32 that stream, the figures of each target in each round."""
    for address, model in targets.values():
        await ready(address, model)
    results: dict[str, Measured] = {}
    for number in range(rounds):
        counts = [clients for clients in CLIENTS if clients <= most_clients]
        for kind, clients in [*((str(clients), clients) for clients in counts), ("stream", 32)]:
            names = list(targets)
            for name in names[number % len(names) :] + names[: number % len(names)]:
                address, model = targets[name]
                began = time.perf_counter()
                took = await load(address, model, clients, seconds, kind == "stream")
                wall = time.perf_counter() - began
                found = {
                    "p50": median(took) * 1000,
                    "p99": quantiles(took, n=100)[98] * 1000 if len(took) > 1 else took[0] * 1000,
                    "rate": len(took) / wall,
                }
                results.setdefault(kind, {}).setdefault(name, []).append(found)
    return results


def added(measured: Measured, name: str, figure: str) -> float:
    """The median over the rounds of what `name` adds to the direct way, in ms."""
    pairs = zip(measured[name], measured["direct"], strict=True)
    return round(median(ours[figure] - bare[figure] for ours, bare in pairs), 2)


def ratio(measured: Measured, name: str) -> float:
    pairs = zip(measured[name], measured["direct"], strict=True)
    return round(median(ours["rate"] / bare["rate"] for ours, bare in pairs), 3)


def report(results: dict[str, Measured], recorded: int) -> dict[str, Any]:
    """The figures by name; those without a suffix are for 32 clients, with calls recorded and the log up."""
    found: dict[str, Any] = {}
    for kind, measured in results.items():
        unit = "ttft" if kind == "stream" else kind
        found[f"direct_{unit}"] = {
            f: round(median(r[f] for r in measured["direct"]), 2) for f in ("p50", "p99", "rate")
        }
        for name in measured:
            if name != "direct":
                found[f"{name}_{unit}"] = {
                    "added_p50": added(measured, name, "p50"),
                    "added_p99": added(measured, name, "p99"),
                    "ratio": ratio(measured, name),
                }
    main = results["32"]
    return found | {
        "recorded": recorded,
        "litellm_added_p50_ms": added(main, "litellm", "p50") if "litellm" in main else None,
        "added_ttft_p50_ms": added(results["stream"], "recording", "p50"),
        "added_p50_ms": added(main, "recording", "p50"),
        "added_p99_ms": added(main, "recording", "p99"),
        "ratio": ratio(main, "recording"),
    }


def run(options: argparse.Namespace) -> dict[str, Any]:
    own = [sys.executable, "-m", "benchmarks.gateway"]
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        broker = stack.enter_context(EmbeddedBroker())
        kafka = KafkaSettings(bootstrap=broker.bootstrap)
        create_topics(kafka)
        port = free_port()
        delay = ["--delay-ms", str(options.delay_ms)]
        address = stack.enter_context(running([*own, "--part", "engine", "--port", str(port), *delay], port))
        targets = {"direct": (address, "base")}
        for name, bootstrap in (("recording", broker.bootstrap), ("log_away", "127.0.0.1:9"), ("not_recording", "")):
            port = free_port()
            part = ["--part", "gateway", "--port", str(port), "--engine", address, "--bootstrap", bootstrap]
            targets[name] = (stack.enter_context(running([*own, *part], port)), "assistant")
        if not options.no_litellm:
            port = free_port()
            command = litellm_command(port, address, folder)
            targets["litellm"] = (stack.enter_context(running(command, port)), "assistant")
        results = uvloop.run(measure(targets, options.rounds, options.seconds, options.most_clients))
        time.sleep(1)
        recorded = sum(end_offsets(kafka.bootstrap, kafka.calls_topic).values())
    return report(results, recorded)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="how often each is asked; medians are reported")
    parser.add_argument("--seconds", type=float, default=3.0, help="how long each is asked at a time")
    parser.add_argument("--delay-ms", type=float, default=50.0, help="the engine's delay")
    parser.add_argument("--most-clients", type=int, default=256, choices=(32, 256), help="leave out what is more")
    parser.add_argument("--no-litellm", action="store_true", help="leave LiteLLM's proxy out")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--part", choices=("engine", "gateway"), help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--engine", help=argparse.SUPPRESS)
    parser.add_argument("--bootstrap", default="", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.part == "engine":
        engine(options.port, options.delay_ms / 1000)
    elif options.part == "gateway":
        gateway(options.port, options.engine, options.bootstrap or NOWHERE, bool(options.bootstrap))
    else:
        found = run(options)
        print(json.dumps(found) if options.json else "\n".join(f"{name:>22} {value}" for name, value in found.items()))


if __name__ == "__main__":
    main()
