"""The serve role: one process with the gateway, the control API and the metrics. The supervisor runs it."""

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import httpx
import structlog
import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel, ConfigDict, Field

from daemon.control import control_router, explain_errors
from daemon.gateway import Alias, gateway_router
from daemon.metrics import Metrics
from daemon.promotion import Promoter, PromotionSettings
from daemon.registry import Registry
from daemon.store_watch import StoreWatch
from streams.errors import RatchetError
from streams.policy import PolicyClient
from streams.settings import KafkaSettings
from streams.store_client import StoreClient

log = structlog.get_logger()


class ServingSettings(BaseModel):
    """Where the serve role listens and what it serves from."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    host: str = Field(default="127.0.0.1", description="Where it listens. It has no authentication: keep it loopback.")
    port: int = Field(default=8420, ge=0, le=65535)
    alias: str = Field(default="assistant", min_length=1, description="The one model name that agents use.")
    inference_url: str = Field(default="http://127.0.0.1:8421", description="The inference server, without /v1.")
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


async def serve(settings: ServingSettings, store_url: str, kafka: KafkaSettings) -> None:
    """Serve until the process is told to stop (SIGINT, SIGTERM). `kafka.bootstrap` must name the running cluster."""
    server = uvicorn.Server(
        uvicorn.Config(
            application(settings, store_url, kafka),
            host=settings.host,
            port=settings.port,
            log_level="warning",
            timeout_graceful_shutdown=5,
        )
    )
    await server.serve()


def application(settings: ServingSettings, store_url: str, kafka: KafkaSettings) -> FastAPI:
    """The whole role as one ASGI application; its background work runs while its lifespan does."""
    registry, alias = Registry(settings.home), Alias(settings.alias)
    policy = PolicyClient(settings.inference_url, settings.timeout_s)
    store = StoreWatch(StoreClient(store_url), kafka)
    promoter = Promoter(registry, policy, alias, settings.promotion)
    metrics = Metrics(registry, alias, store)
    # Agents decide how many requests they make; a pool that makes some wait would hide how busy the server is.
    inference = httpx.AsyncClient(
        base_url=settings.inference_url, timeout=settings.timeout_s, limits=httpx.Limits(max_connections=None)
    )

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            stack.push_async_callback(inference.aclose)
            await stack.enter_async_context(policy)
            await stack.enter_async_context(store.client)
            for work in (_keep_reconciled(promoter, settings), _keep_fresh(store, settings)):
                task = asyncio.create_task(work)
                task.add_done_callback(_end_process_if_failed)
                stack.push_async_callback(_cancel, task)
            yield

    app = FastAPI(title="Ratchet", lifespan=lifespan)
    explain_errors(app)
    app.include_router(gateway_router(alias, inference, metrics.gateway_requests))
    app.include_router(control_router(registry, alias, promoter, policy, store.client, metrics))
    return app


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


def _end_process_if_failed(task: asyncio.Task[None]) -> None:
    """A gateway whose background work died unforeseen would go stale in silence; the supervisor starts a fresh one."""
    if not task.cancelled() and (error := task.exception()):
        log.error("the serve role ends: its background work failed", exc_info=error)
        signal.raise_signal(signal.SIGTERM)


async def _cancel(task: asyncio.Task[None]) -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
