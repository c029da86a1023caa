"""An inference server of the tests' own, which shows what it was sent and answers what it is told to.

A double for what the real server does not do on demand: odd headers, errors, and replies that break off anywhere.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import httpx
import uvicorn
from fastapi import FastAPI
from prometheus_client import CollectorRegistry, Counter

from daemon.serving.alias import Alias
from daemon.serving.capture import Capture
from daemon.serving.feedback import FeedbackIntake
from daemon.serving.gateway import Gateway
from daemon.serving.settings import CaptureSettings, ServingSettings
from daemon.serving.upstream import Upstream
from ratchet_client.errors import BrokerError
from streams.calls.records import ANY_CALL_RECORD, AnyCallRecord, CapturedCall
from streams.kafka.records import Outgoing
from streams.runtime.http_errors import answer_errors
from streams.runtime.http_server import HttpServer, listen
from tests.builders.rotations import in_rotation
from tests.waiting import until

CHAT = {"model": "assistant", "messages": [{"role": "system", "content": "Help."}, {"role": "user", "content": "Hi."}]}
TOPIC = "calls"


@dataclass
class Answers:
    """A server over bare TCP. `answers` are sent in turn, the last one again and again: parts, then the end."""

    answers: list[list[bytes]]
    pause_s: float = 0.0
    requests: list[tuple[str, dict[str, str], bytes]] = field(default_factory=list)
    left: int = 0

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
                headers = {
                    name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:] if line)
                }
                body = await reader.readexactly(int(headers.get("content-length", "0")))
                self.requests.append((head[0], headers, body))
                parts = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
                for part in parts:
                    writer.write(part)
                    await writer.drain()
                    await asyncio.sleep(self.pause_s)
                if not parts or b"connection: close" in parts[0]:
                    break
        except (asyncio.IncompleteReadError, ConnectionError):
            self.left += 1
        finally:
            writer.close()


def whole(status: int, body: bytes, *headers: str, media_type: str = "application/json") -> list[bytes]:
    """An answer with a content length."""
    lines = [f"HTTP/1.1 {status} X", f"content-type: {media_type}", f"content-length: {len(body)}", *headers]
    return ["\r\n".join(lines).encode() + b"\r\n\r\n" + body]


def stream(*parts: bytes, ends: bool = True) -> list[bytes]:
    """A chunked stream of events; one that does not end is cut off."""
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n"
    chunks = [f"{len(part):x}\r\n".encode() + part + b"\r\n" for part in parts]
    return [head + (b"\r\n" if ends else b"connection: close\r\n\r\n"), *chunks, *([b"0\r\n\r\n"] if ends else [])]


@dataclass
class Log:
    """The log's double for tests of what is published; `away` makes it fail."""

    messages: list[Outgoing] = field(default_factory=list)
    away: bool = False

    def publish(self, messages: Sequence[Outgoing]) -> None:
        if self.away:
            raise BrokerError("the cluster is away")
        self.messages += messages

    @property
    def records(self) -> list[AnyCallRecord]:
        return [ANY_CALL_RECORD.validate_json(message.value or b"") for message in self.messages]


@dataclass
class Bench:
    """A gateway before an `Answers`: its client, and what it captured."""

    client: httpx.AsyncClient
    engine: Answers
    alias: Alias
    capture: Capture
    log: Log
    gateway: Gateway
    app: FastAPI

    def call(self) -> CapturedCall:
        """The one call that was captured."""
        until(lambda: self.log.messages, "a call is published", within_s=10)
        (record,) = self.log.records
        assert isinstance(record, CapturedCall)
        return record


@asynccontextmanager
async def bench(*answers: list[bytes], pause_s: float = 0.0, **settings: object) -> AsyncIterator[Bench]:
    """A gateway whose engine gives `answers`; `settings` are those of `ServingSettings`."""
    engine = Answers(list(answers) or [whole(200, b"{}")], pause_s)
    server = await asyncio.start_server(engine.handle, "127.0.0.1", 0)
    address = "http://{}:{}".format(*server.sockets[0].getsockname())
    alias, log = Alias("assistant"), Log()
    alias.point_to("base", "ratchet-1")
    serving = ServingSettings.model_validate({"capture": CaptureSettings(flush_s=1), **settings})
    capture = Capture(serving.capture, TOPIC, log)
    capture.start()
    intake = FeedbackIntake(serving, TOPIC, log)
    counter = Counter("requests", "Requests.", ["status"], registry=CollectorRegistry())
    app = FastAPI()
    answer_errors(app)
    async with Upstream(
        in_rotation(address, holding=("ratchet-1", "ratchet-9", "ratchet-12")), serving.timeout_s
    ) as upstream:
        gateway = Gateway(alias, upstream, counter, serving, capture, intake)
        app.router.routes += gateway.routes()
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1") as client:
            yield Bench(client, engine, alias, capture, log, gateway, app)
    capture.stop()
    intake.close()
    server.close()


@asynccontextmanager
async def over_tcp(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    """A client of `app` at a real server on this loop."""
    listener = listen("127.0.0.1", 0, "the gateway", "nothing")
    server = HttpServer(uvicorn.Config(app, log_config=None, lifespan="off"))
    serving = asyncio.create_task(server.serve([listener]))
    try:
        async with httpx.AsyncClient(base_url="http://{}:{}".format(*listener.getsockname())) as client:
            yield client
    finally:
        server.should_exit = True
        await serving
