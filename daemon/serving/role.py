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

from daemon.serving.access import GATEWAY, NEEDS, access_of
from daemon.serving.capture import Capture
from daemon.serving.control import control_router
from daemon.serving.engine_client import engine_client
from daemon.serving.feedback import FeedbackIntake
from daemon.serving.gateway import Gateway
from daemon.serving.groups import ServedGroups, serve_groups
from daemon.serving.limits import GatewayLimits
from daemon.serving.metrics import Metrics
from daemon.serving.promotion import Promoter
from daemon.serving.replicas import Replicas
from daemon.serving.settings import ServingSettings
from daemon.serving.sole import sole_serve_role
from daemon.serving.store_watch import StoreWatch
from daemon.serving.upstream import Upstream
from evaluation.settings import GateSettings
from ratchet_client.errors import BrokerError, RatchetError
from streams.access.access import Access
from streams.access.guard import guard
from streams.errors import LifecycleError, PromotionError
from streams.kafka.publisher import Publisher
from streams.kafka.settings import KafkaSettings
from streams.kafka.topics import create_topics
from streams.runtime.health import add_health, answers, reachable
from streams.runtime.http_errors import answer_errors
from streams.runtime.http_server import HttpServer, listen
from streams.store.client import StoreClient
from streams.trust.groups import AdapterSettings

log = structlog.get_logger()


# What adds the pages for people to the app. They know more of Ratchet than this package may.
AddPages = Callable[[FastAPI, Access, StoreClient, ServingSettings, AdapterSettings], None]

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
    adapters: AdapterSettings = AdapterSettings(),  # noqa: B008 - frozen
    add_pages: AddPages | None = None,
) -> None:
    """Run the serve role until `stop` is set or this task is cancelled. `kafka.bootstrap` must name a cluster.

    `gate` are the settings that the learner's gates have, for metrics; `access` is by default that of the tokens of
    `settings`; `adapters` has the groups that have an adapter of their own; `add_pages` puts pages before the app.

    Raises `ConfigurationError` where one runs on the same home already, and whatever its background work did not
    expect: the process should then end and be started again, since a gateway that is not reconciled would go stale in
    silence.
    """
    access = access or access_of(settings)
    access.begin()
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
        groups = serve_groups(settings, adapters, replicas, upstream, store)
        opened.push_async_callback(groups.close)
        default = groups.default
        watch = StoreWatch(store, kafka)
        metrics = Metrics(
            *(default.registry, default.alias, watch, capture, feedback, default.canary, replicas),
            *(default.promoter.loader.attested, gate, groups),
        )
        app = FastAPI(title="Ratchet")
        answer_errors(app, conflicts=(PromotionError, LifecycleError))
        guard(app, access, NEEDS, asks_itself=GATEWAY)
        add_health(
            app,
            {
                "engine": partial(_engine_reason, groups, replicas),
                "store": answers(f"{store_url}/readyz"),
                "log": reachable(kafka.bootstrap),
            },
        )
        limits = GatewayLimits(access.limits, settings.max_request_bytes, metrics.limits)
        gateway = Gateway(
            *(default.alias, upstream, metrics.gateway_requests, settings, capture, feedback, default.canary),
            *(metrics.calls, access, groups, limits),
        )
        app.router.routes += gateway.routes()
        app.include_router(control_router(groups, replicas, watch, metrics, kafka.bootstrap, capture))
        if add_pages is not None:
            add_pages(app, access, store, settings, adapters)
        config = uvicorn.Config(app, log_level="warning", lifespan="off", timeout_graceful_shutdown=LAST_SECONDS)
        server = HttpServer(config, access.tls)
        answering = asyncio.create_task(
            server.serve([listen(settings.host, settings.port, "the gateway", "RATCHET_SERVING__PORT")])
        )
        background = [
            asyncio.create_task(work)
            for work in (
                stop.wait(),
                _keep_reconciled(groups, replicas, settings),
                _keep_fresh(watch, settings),
                *(_keep_lapsing(group.promoter, settings) for group in groups.all.values()),
                *(group.judge.run() for group in groups.all.values()),
                *(group.shadow.run() for group in groups.all.values()),
                *(group.drill.keep_holding() for group in groups.all.values()),
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


async def _engine_reason(groups: ServedGroups, replicas: Replicas) -> str:
    """The reason for which no model would answer an agent of no group; empty where one does.

    One that is cold is loaded when it is asked for.
    """
    alias = groups.default.alias
    if (alias.is_cold and replicas.usable()) or (
        alias.served is not None and replicas.choose(alias.served) is not None
    ):
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


async def _keep_reconciled(groups: ServedGroups, replicas: Replicas, settings: ServingSettings) -> None:
    """Inference servers may start later than this process, go, and forget their adapters when they restart.

    Each is looked at again soon, whatever is wrong; attempts at a champion that cannot serve grow rarer by themselves.
    """
    told: dict[str, str] = {}
    while True:
        replicas.changed.clear()
        looked = False
        for name, group in groups.all.items():
            if group.turn.lent:  # it would end a drill, which is over soon in any case
                continue
            try:
                await group.promoter.reconcile(looked=looked)
                told.pop(name, None)
            except (RatchetError, OSError) as error:
                if str(error) != told.get(name):
                    log.warning("what should serve does not serve yet", error=str(error), **_of(name))
                told[name] = str(error)
            looked = True
        with suppress(TimeoutError):
            async with asyncio.timeout(settings.reconcile_s):
                await replicas.changed.wait()


def _of(name: str) -> dict[str, str]:
    return {"group": name} if name else {}


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
