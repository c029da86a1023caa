"""The serve role: one process with the gateway, the control API and the metrics. The supervisor runs it."""

import asyncio
import sys
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from functools import partial

import structlog
import uvicorn
from fastapi import FastAPI

from daemon.registry.registry import Registry
from daemon.serving.access import GATEWAY, NEEDS, access_of
from daemon.serving.alias import Alias
from daemon.serving.canary import Canary
from daemon.serving.canary_judge import CanaryJudge
from daemon.serving.capture import Capture
from daemon.serving.control import control_router
from daemon.serving.drill import RollbackDrill
from daemon.serving.engine_client import engine_client
from daemon.serving.feedback import FeedbackIntake
from daemon.serving.gateway import Gateway
from daemon.serving.metrics import Metrics
from daemon.serving.promotion import Promoter
from daemon.serving.replicas import Replicas
from daemon.serving.settings import ServingSettings
from daemon.serving.shadow import Shadow
from daemon.serving.sole import sole_serve_role
from daemon.serving.store_watch import StoreWatch
from daemon.serving.turn import Turn
from daemon.serving.upstream import Upstream
from evaluation.settings import GateSettings
from streams.access.access import Access
from streams.access.guard import guard
from streams.errors import BrokerError, LifecycleError, PromotionError, RatchetError
from streams.kafka.publisher import Publisher
from streams.kafka.settings import KafkaSettings
from streams.kafka.topics import create_topics
from streams.runtime.health import add_health, answers, reachable
from streams.runtime.http_errors import answer_errors
from streams.runtime.http_server import HttpServer, listen
from streams.store.client import StoreClient

log = structlog.get_logger()


# What adds the pages for people to the app. They know more of Ratchet than this package may.
AddPages = Callable[[FastAPI, Access, StoreClient, ServingSettings], None]

LONGEST_PAUSE_S = 60.0
FEEDBACK_TIMEOUT_S = 5.0
# How long the thread that publishes calls may keep the interpreter from one that answers; Python's default is 5 ms.
SWITCH_INTERVAL_S = 0.0002
# Streams that are still open when the role is told to stop get this long.
LAST_SECONDS = 2


async def serve(
    settings: ServingSettings,
    store_url: str,
    kafka: KafkaSettings,
    stop: asyncio.Event,
    gate: GateSettings = GateSettings(),  # noqa: B008 - frozen
    access: Access | None = None,
    add_pages: AddPages | None = None,
) -> None:
    """Run the serve role until `stop` is set or this task is cancelled. `kafka.bootstrap` must name a cluster.

    `gate` are the settings that the learner's gates have, for metrics; `access` is by default that of the tokens of
    `settings`. `add_pages` puts the pages for people before the app.

    Raises `ConfigurationError` where one runs on the same home already, and whatever its background work did not
    expect: the process should then end and be started again, since a gateway that is not reconciled would go stale in
    silence.
    """
    access = access or access_of(settings)
    access.begin()
    registry, alias = Registry(settings.home), Alias(settings.alias)
    async with (
        sole_serve_role(settings.home),
        AsyncExitStack() as opened,
        _topics(kafka),
        _capture(settings, kafka) as capture,
        _feedback(settings, kafka) as feedback,
        StoreClient(store_url) as store,
    ):
        urls = (settings.inference_url, *settings.replica_urls)
        clients = [await opened.enter_async_context(engine_client(settings, url)) for url in urls]
        replicas = Replicas(clients)
        key = settings.engine_key.get_secret_value()
        upstream = await opened.enter_async_context(Upstream(replicas, settings.timeout_s, key))
        shadow = Shadow(settings.shadow, upstream)
        canary = Canary(settings.canary, settings.home, shadow)
        turn = Turn()
        promoter = Promoter(registry, replicas, alias, settings.promotion, canary, turn)
        drill = RollbackDrill(registry, replicas, alias, turn, settings.drill, settings.promotion.probe)
        judge = CanaryJudge(registry, canary, promoter, store)
        watch = StoreWatch(store, kafka)
        attested = promoter.loader.attested
        metrics = Metrics(registry, alias, watch, capture, feedback, canary, replicas, attested, gate)
        app = FastAPI(title="Ratchet")
        answer_errors(app, conflicts=(PromotionError, LifecycleError))
        guard(app, access, NEEDS, asks_itself=GATEWAY)
        add_health(
            app,
            {
                "engine": partial(_engine_reason, alias, replicas),
                "store": answers(f"{store_url}/readyz"),
                "log": reachable(kafka.bootstrap),
            },
        )
        calls = metrics.calls
        gateway = Gateway(alias, upstream, metrics.gateway_requests, settings, capture, feedback, canary, calls, access)
        app.router.routes += gateway.routes()
        app.include_router(
            control_router(registry, alias, promoter, drill, replicas, watch, metrics, kafka.bootstrap, capture, canary)
        )
        if add_pages is not None:
            add_pages(app, access, store, settings)
        config = uvicorn.Config(app, log_level="warning", lifespan="off", timeout_graceful_shutdown=LAST_SECONDS)
        server = HttpServer(config)
        answering = asyncio.create_task(
            server.serve([listen(settings.host, settings.port, "the gateway", "RATCHET_SERVING__PORT")])
        )
        background = [
            asyncio.create_task(work)
            for work in (
                stop.wait(),
                _keep_reconciled(promoter, replicas, turn, settings),
                _keep_fresh(watch, settings),
                _keep_lapsing(promoter, settings),
                judge.run(),
                shadow.run(),
                drill.keep_holding(),
            )
        ]
        try:
            done, _ = await asyncio.wait({answering, *background}, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            server.should_exit = True
            for task in background:
                task.cancel()
            await asyncio.gather(answering, *background, return_exceptions=True)


async def _engine_reason(alias: Alias, replicas: Replicas) -> str:
    """The reason for which no model would answer an agent; empty where one does."""
    if alias.served is not None and replicas.choose(alias.served) is not None:
        return ""
    reasons = [f"{replica.url}: {replica.reason}" for replica in replicas.all if replica.reason]
    return "; ".join(reasons) or "nothing serves yet; the log says why"


@asynccontextmanager
async def _topics(kafka: KafkaSettings) -> AsyncIterator[None]:
    """The topic that calls and feedback go to is made as soon as the cluster answers; nothing waits for it.

    In a thread of its own, because a cluster that is away keeps its client waiting, also when the role is to end.
    """
    stopping = threading.Event()
    threading.Thread(target=_create_topic, args=(kafka, stopping), name="topics", daemon=True).start()
    try:
        yield
    finally:
        stopping.set()


def _create_topic(kafka: KafkaSettings, stopping: threading.Event) -> None:
    pause = 1.0
    while not stopping.is_set():
        try:
            create_topics(kafka, (kafka.calls_topic,))
            return
        except BrokerError as error:
            if stopping.is_set():
                return
            log.warning(
                "the topic of calls cannot be made yet", topic=kafka.calls_topic, error=str(error), again_s=pause
            )
        stopping.wait(pause)
        pause = min(2 * pause, LONGEST_PAUSE_S)


@asynccontextmanager
async def _capture(settings: ServingSettings, kafka: KafkaSettings) -> AsyncIterator[Capture | None]:
    """The recording of calls while the role serves, if the settings want it."""
    if not settings.capture.enabled:
        yield None
        return
    own = settings.capture
    publisher = Publisher(kafka, own.publish_timeout_s, own.max_record_bytes, "gateway")
    capture = Capture(own, kafka.calls_topic, publisher)
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    capture.start()
    try:
        yield capture
    finally:
        await asyncio.to_thread(capture.stop)
        await asyncio.to_thread(publisher.close)


@asynccontextmanager
async def _feedback(settings: ServingSettings, kafka: KafkaSettings) -> AsyncIterator[FeedbackIntake]:
    # Of its own: a producer that fails is replaced, with all that it had not sent yet.
    publisher = Publisher(kafka, FEEDBACK_TIMEOUT_S, settings.capture.max_record_bytes, "feedback")
    intake = FeedbackIntake(settings, kafka.calls_topic, publisher)
    try:
        yield intake
    finally:
        intake.close()
        await asyncio.to_thread(publisher.close)


async def _keep_reconciled(promoter: Promoter, replicas: Replicas, turn: Turn, settings: ServingSettings) -> None:
    """Inference servers may start later than this process, go, and forget their adapters when they restart.

    Each is looked at again soon, whatever is wrong; attempts at a champion that cannot serve grow rarer by themselves.
    """
    told = ""
    while True:
        replicas.changed.clear()
        try:
            if not turn.lent:  # it would end a drill, which is over soon in any case
                await promoter.reconcile()
            told = ""
        except (RatchetError, OSError) as error:
            if str(error) != told:
                log.warning("what should serve does not serve yet", error=str(error))
            told = str(error)
        with suppress(TimeoutError):
            async with asyncio.timeout(settings.reconcile_s):
                await replicas.changed.wait()


async def _keep_fresh(store: StoreWatch, settings: ServingSettings) -> None:
    while True:
        await store.refresh()
        await asyncio.sleep(settings.refresh_s)


async def _keep_lapsing(promoter: Promoter, settings: ServingSettings) -> None:
    while True:
        try:
            promoter.lapse()
        except (RatchetError, OSError) as error:
            log.warning("held candidates could not be looked at", error=str(error))
        await asyncio.sleep(settings.refresh_s)
