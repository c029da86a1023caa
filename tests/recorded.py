"""The gateway in front of a server, and the record of the calls that it passed on and of feedback on them."""

from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager

from prometheus_client import CollectorRegistry, Counter
from starlette.applications import Starlette

from daemon.serving.alias import Alias
from daemon.serving.capture import Capture, Publishes
from daemon.serving.feedback import FeedbackIntake
from daemon.serving.gateway import Gateway
from daemon.serving.settings import CaptureSettings, ServingSettings
from daemon.serving.upstream import Upstream
from streams.calls.chat import Chat
from streams.calls.faces import read_call
from streams.calls.records import ANY_CALL_RECORD, AnyCallRecord, CapturedCall
from streams.kafka.records import Outgoing
from tests.builders.rotations import in_rotation
from tests.served import served
from tests.waiting import until

ALIAS = "house"


class RecordedGateway:
    """A gateway that agents know by its `address`, and what it put into the log: here a list."""

    def __init__(self, address: str, alias: Alias, capture: Capture, published: list[Outgoing]) -> None:
        self.address = address
        self._alias, self._capture, self._published = alias, capture, published

    @property
    def waiting(self) -> bool:
        """Whether calls are under way or not recorded yet."""
        return bool(self._alias.in_flight("base") or self._capture.status.waiting)

    def records(self) -> list[AnyCallRecord]:
        """What was called, and the feedback that was given, since the last time."""
        # A client has its reply before the gateway is done with it.
        until(lambda: not self.waiting, "the calls are recorded")
        found = [ANY_CALL_RECORD.validate_json(message.value or b"") for message in self._published]
        self._published.clear()
        return found

    def calls(self) -> list[CapturedCall]:
        return [call for call in self.records() if isinstance(call, CapturedCall)]

    def chats(self) -> list[Chat]:
        return [chat for call in self.calls() for chat in read_call(call)]

    def chat(self) -> Chat:
        [chat] = self.chats()
        return chat


class _List:
    def __init__(self, published: list[Outgoing]) -> None:
        self._published = published

    def publish(self, messages: Sequence[Outgoing]) -> None:
        self._published.extend(messages)


@contextmanager
def recorded_gateway(
    upstream_url: str, log: Publishes | None = None, topic: str = "ratchet.calls"
) -> Iterator[RecordedGateway]:
    """A gateway in a thread of this process, in front of a server that calls its model `base`.

    Calls and feedback go to `log`; without one they can be asked for.
    """
    published: list[Outgoing] = []
    log = log or _List(published)
    alias = Alias(ALIAS)
    alias.point_to("base", "base")
    capture = Capture(CaptureSettings(), topic, log)
    feedback = FeedbackIntake(ServingSettings(), topic, log)
    requests = Counter("requests", "Requests.", ["status"], registry=CollectorRegistry())

    @asynccontextmanager
    async def running(app: Starlette) -> AsyncIterator[None]:
        async with Upstream(in_rotation(upstream_url), 60) as upstream:
            app.router.routes += Gateway(alias, upstream, requests, capture=capture, feedback=feedback).routes()
            yield

    capture.start()
    try:
        with served(Starlette(lifespan=running), timeout_graceful_shutdown=1) as address:
            yield RecordedGateway(address, alias, capture, published)
    finally:
        feedback.close()
        capture.stop()
