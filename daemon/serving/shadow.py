"""The shadow: while a canary runs, the candidate answers copies of requests that the champion answered.

Copies are asked for after the champion's reply is on its way, from a bounded queue, one or a few at a time. What comes
back is compared and thrown away: no agent gets it, no tool is called, nothing is captured. The Responses API is left
out, since an inference server keeps its responses and may run tools of its own for them.
"""

import asyncio
import random
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import structlog

from daemon.registry.schemas import ShadowFigures
from daemon.serving.headers import RawHeaders
from daemon.serving.settings import ShadowSettings
from daemon.serving.upstream import Question, Upstream, UpstreamError
from ratchet_client.messages import Message, Tools
from streams.calls.absence import AbsentContentError
from streams.calls.chat import Chat
from streams.calls.faces import read_call
from streams.calls.records import CapturedCall, Face
from streams.environments.tool_calls import calls_of, canonical
from streams.environments.tool_definitions import usable
from streams.errors import ToolCallError

log = structlog.get_logger()

FACES = frozenset({Face.CHAT, Face.COMPLETIONS, Face.ANTHROPIC})


@dataclass(frozen=True, slots=True)
class Original:
    """A call that the champion answered: the request as it came, the reply as it came, and its duration."""

    face: Face
    target: str
    headers: RawHeaders
    request: bytes
    reply: bytes
    seconds: float

    @property
    def size(self) -> int:
        return len(self.request) + len(self.reply)

    def question(self, served: str) -> Question:
        """The copy, for `served`."""
        return Question("POST", self.face, self.target, self.headers, self.request, served)


class Shadow:
    """The queue of copies and the tasks that ask for them. Belongs to one event loop; `run` works until cancelled."""

    def __init__(self, settings: ShadowSettings, upstream: Upstream) -> None:
        self.settings = settings
        self.figures = ShadowFigures()
        self._upstream = upstream
        self._queue: deque[tuple[Original, str]] = deque()
        self._bytes = 0
        self._came = asyncio.Event()
        # Which calls are copied is chance, so its numbers need not be the same twice.
        self._random = random.Random()

    def wants(self, face: Face) -> bool:
        """Draw whether the next call of this API is copied."""
        return face in FACES and self.settings.share > 0 and self._random.random() < self.settings.share

    def offer(self, original: Original, served: str) -> bool:
        """Have `served`, the candidate, answer a copy some time. False, at once, when too many wait."""
        if len(self._queue) >= self.settings.queue_calls or self._bytes + original.size > self.settings.queue_bytes:
            self._count(dropped=1)
            return False
        self._queue.append((original, served))
        self._bytes += original.size
        self._came.set()
        return True

    def clear(self) -> None:
        """Forget what waits, and the figures: another canary begins."""
        self._queue.clear()
        self._bytes = 0
        self.figures = ShadowFigures()

    async def run(self) -> None:
        await asyncio.gather(*(self._work() for _ in range(self.settings.concurrency)))

    async def _work(self) -> None:
        while True:
            while not self._queue:
                self._came.clear()
                await self._came.wait()
            original, served = self._queue.popleft()
            self._bytes -= original.size
            try:
                await self._ask(original, served)
            except Exception as error:  # noqa: BLE001 - a copy that cannot be compared must not end the gateway
                # Not its text, which may be what agents say.
                log.error("a copy could not be compared", error=type(error).__name__)
                self._count(errors=1)

    async def _ask(self, original: Original, served: str) -> None:
        self._count(copies=1)
        began = time.monotonic()
        try:
            async with (
                asyncio.timeout(self.settings.timeout_s),
                self._upstream.ask(original.question(served)) as answer,
            ):
                reply = await answer.whole()
                failed = answer.status >= 300
        except (UpstreamError, TimeoutError):
            failed, reply = True, b""
        seconds = time.monotonic() - began
        if failed:
            self._count(errors=1)
            return
        self._count(champion_s=original.seconds, candidate_s=seconds)
        champion, candidate = (_read(original, each) for each in (original.reply, reply))
        if champion is None:
            return  # it cannot be compared, which is not the candidate's fault
        if candidate is None:
            self._count(errors=1)
        else:
            calls = candidate.action.calls
            self._count(
                compared=1,
                agreed=same_action(champion.action, candidate.action),
                tool_calls=bool(calls),
                valid_tool_calls=bool(calls) and are_valid(candidate.action, candidate.tools or ()),
            )

    def _count(self, **more: float) -> None:
        self.figures = self.figures.model_copy(
            update={name: getattr(self.figures, name) + value for name, value in more.items()}
        )


def same_action(one: Message, other: Message) -> bool:
    """Return whether two replies call the same tools with the same arguments; where neither does, say the same."""
    if not one.calls and not other.calls:
        return one.text.strip() == other.text.strip()
    return canonical(one) == canonical(other)


def are_valid(action: Message, tools: Tools) -> bool:
    """Return whether every call names a tool that was offered and has arguments that the tool's schema allows."""
    offered = usable(tools)
    try:
        calls = calls_of(action)
    except ToolCallError:
        return False
    return all(call.name in offered and offered[call.name].takes(call.arguments) for call in calls)


def _read(original: Original, reply: bytes) -> Chat | None:
    record = CapturedCall(
        receipt="shadow",
        face=original.face,
        served="shadow",
        began_ns=0,
        ended_ns=0,
        request=original.request.decode(errors="replace"),
        reply=reply.decode(errors="replace"),
    )
    try:
        chats: Sequence[Chat] = read_call(record)
    except (AbsentContentError, ValueError, RecursionError):
        return None
    return chats[0] if chats else None
