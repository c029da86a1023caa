"""The serve role: one process with the gateway, the control API and the metrics. The supervisor runs it."""

import asyncio
from pathlib import Path

import httpx
import structlog
import uvicorn
from fastapi import FastAPI
from pydantic import Field

from daemon.registry.registry import Registry
from daemon.serving.control import control_router
from daemon.serving.gateway import Alias, gateway_router
from daemon.serving.metrics import Metrics
from daemon.serving.promotion import Promoter, PromotionSettings
from daemon.serving.store_watch import StoreWatch
from streams.errors import LifecycleError, PromotionError, RatchetError
from streams.kafka.settings import KafkaSettings
from streams.policy.client import PolicyClient
from streams.runtime.http_client import IDLE_S
from streams.runtime.http_errors import answer_errors
from streams.runtime.http_server import HttpServer, listen
from streams.settings import FrozenModel, ServerUrl
from streams.store.client import StoreClient

log = structlog.get_logger()


class ServingSettings(FrozenModel):
    """Settings of the serve role: where it listens and which engine it serves from."""

    host: str = Field(default="127.0.0.1", description="Where it listens. It has no authentication: keep it loopback.")
    port: int = Field(default=8420, ge=1, le=65535)
    alias: str = Field(default="assistant", min_length=1, description="The one model name that agents use.")
    inference_url: ServerUrl = Field(
        default="http://127.0.0.1:8421", description="The inference server, with or without /v1."
    )
    home: Path = Field(default=Path(".ratchet"), description="Folder of the refs, the audit log and the adapters.")
    timeout_s: float = Field(default=300.0, gt=0, description="Longest wait for an answer of the inference server.")
    reconcile_s: float = Field(
        default=2.0, gt=0, description="How often it is checked that the inference server still has what serves."
    )
    refresh_s: float = Field(
        default=10.0, gt=0, description="How often the store and the broker are asked for figures."
    )
    promotion: PromotionSettings = PromotionSettings()


LONGEST_PAUSE_S = 60.0
# Streams that are still open when the role is told to stop get this long.
LAST_SECONDS = 2


async def serve(settings: ServingSettings, store_url: str, kafka: KafkaSettings, stop: asyncio.Event) -> None:
    """Run the serve role until `stop` is set or this task is cancelled. `kafka.bootstrap` must name a cluster.

    Raises whatever its background work did not expect: the process should then end and be started again, since a
    gateway that is not reconciled would go stale in silence.
    """
    registry, alias = Registry(settings.home), Alias(settings.alias)
    # Agents decide how many requests they make; a pool that makes some wait would hide how busy the server is.
    unlimited = httpx.Limits(max_connections=None, keepalive_expiry=IDLE_S)
    async with (
        httpx.AsyncClient(base_url=settings.inference_url, timeout=settings.timeout_s, limits=unlimited) as inference,
        PolicyClient(settings.inference_url, settings.timeout_s) as policy,
        StoreClient(store_url) as store,
    ):
        promoter = Promoter(registry, policy, alias, settings.promotion)
        watch = StoreWatch(store, kafka)
        metrics = Metrics(registry, alias, watch)
        app = FastAPI(title="Ratchet")
        answer_errors(app, conflicts=(PromotionError, LifecycleError))
        app.include_router(gateway_router(alias, inference, metrics.gateway_requests))
        app.include_router(control_router(registry, alias, promoter, policy, store, metrics, kafka.bootstrap))
        config = uvicorn.Config(app, log_level="warning", lifespan="off", timeout_graceful_shutdown=LAST_SECONDS)
        server = HttpServer(config)
        answering = asyncio.create_task(
            server.serve([listen(settings.host, settings.port, "the gateway", "RATCHET_SERVING__PORT")])
        )
        background = [
            asyncio.create_task(work)
            for work in (stop.wait(), _keep_reconciled(promoter, settings), _keep_fresh(watch, settings))
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


async def _keep_reconciled(promoter: Promoter, settings: ServingSettings) -> None:
    """The inference server may start later than this process, and forgets its adapters when it restarts."""
    pause = settings.reconcile_s
    while True:
        try:
            await promoter.reconcile()
            pause = settings.reconcile_s
        except (RatchetError, OSError) as error:
            # Each attempt at a champion that cannot serve leaves an entry in the audit log, so they grow rarer.
            log.warning("what should serve does not serve yet", error=str(error), next_try_s=pause)
            pause = min(2 * pause, LONGEST_PAUSE_S)
        await asyncio.sleep(pause)


async def _keep_fresh(store: StoreWatch, settings: ServingSettings) -> None:
    while True:
        await store.refresh()
        await asyncio.sleep(settings.refresh_s)
