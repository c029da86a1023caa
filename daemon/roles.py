"""The roles of a running Ratchet, each a process of its own: `ratchet run --roles ROLE` ends up here."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from enum import StrEnum
from pathlib import Path

import structlog
from pydantic import SecretStr

from daemon.config import Settings
from daemon.erasure.carrying_out import carry_out
from daemon.erasure.request import is_asked_for
from daemon.learning import role as learn_role
from daemon.learning.domain import holdout_of
from daemon.learning.sole import learner_in_turn
from daemon.pages.site import add_pages
from daemon.registry.learner_status import LearnerPhase, learner_report
from daemon.serving import role as serve_role
from ratchet_client.errors import ConfigurationError
from streams.access.access import Access
from streams.access.guard import HEALTH, guard
from streams.access.tokens import AccessRole, callers, own_token
from streams.assembly import role as assemble_role
from streams.branching import role as branch_role
from streams.environments.registry import is_configured
from streams.errors import ErasureError
from streams.intake import role as record_role
from streams.otlp import role as otlp_role
from streams.policy.client import PolicyClient
from streams.redaction.key import redaction_key
from streams.redaction.redactor import Redactor
from streams.runtime.health import Check, answers, health_app, health_listener, reachable
from streams.runtime.processes import stop_on_signals
from streams.trust.groups import DEFAULT_GROUP
from streams.trust.holdout import HoldoutSettings

log = structlog.get_logger()

_LOOK_EVERY_S = 1.0


class Role(StrEnum):
    """`record` stores the stream, `branch` tries alternatives, `learn` runs cycles, `serve` has gateway and control.

    `assemble` makes events of captured calls and of OpenTelemetry spans. `otlp` receives the latter; it runs only where
    it is asked for.
    """

    RECORD = "record"
    BRANCH = "branch"
    LEARN = "learn"
    SERVE = "serve"
    ASSEMBLE = "assemble"
    OTLP = "otlp"


def access_of(settings: Settings, role: Role) -> Access | None:
    """Who may ask the role; None where it listens nowhere."""
    asking, recording, health = settings.serving.tokens, settings.otlp.tokens, settings.health
    ports = {Role.BRANCH: health.branch_port, Role.LEARN: health.learn_port}
    if not ports.get(role, 1):
        return None
    host, setting, tokens = {
        Role.RECORD: (settings.store.host, "store.host", {}),
        Role.SERVE: (settings.serving.host, "serving.host", callers(asking, AccessRole.ASK)),
        Role.ASSEMBLE: (settings.assembly.host, "assembly.host", {}),
        Role.OTLP: (settings.otlp.host, "otlp.host", callers(recording, AccessRole.RECORD)),
        Role.BRANCH: (health.host, "health.host", {}),
        Role.LEARN: (health.host, "health.host", {}),
    }[role]
    return Access(host, setting, settings.access, settings.home, tokens)


async def record(settings: Settings) -> None:
    """Carry out the erasure that waits, if one does, then store the stream; end when another one is asked for."""
    await asyncio.to_thread(carry_out, settings.home, settings.store)
    stop = stop_on_signals()
    watch = asyncio.create_task(_end_when_erasure_is_asked_for(settings.home, stop))
    try:
        await _record(settings, stop)
    finally:
        watch.cancel()
    if is_asked_for(settings.home):
        raise ErasureError("an erasure was asked for: start the record role again, which carries it out first")


async def _end_when_erasure_is_asked_for(home: Path, stop: asyncio.Event) -> None:
    while not is_asked_for(home):  # noqa: ASYNC110 - another process makes the file
        await asyncio.sleep(_LOOK_EVERY_S)
    stop.set()


async def _record(settings: Settings, stop: asyncio.Event) -> None:
    await record_role.serve(
        settings.kafka,
        settings.store,
        await asyncio.to_thread(_known_holdout, settings),
        stop,
        settings.admission,
        settings.redaction,
        settings.trust,
        lambda environment: is_configured(environment, settings.branching.environments.get(environment, {})),
        access_of(settings, Role.RECORD),
    )


def _known_holdout(settings: Settings) -> HoldoutSettings:
    try:
        return holdout_of(settings)
    except ConfigurationError as error:
        # What is recorded must be stored all the same, and the learn role decides again what is held out.
        log.warning("held-out tasks are known by their ids alone", error=str(error), remedy="correct it and restart")
        return settings.holdout


@asynccontextmanager
async def health_interface(
    settings: Settings, role: Role, port: int, checks: Mapping[str, Check]
) -> AsyncIterator[None]:
    """The interface of a role that has no other. Raises `ConfigurationError` as every interface does."""
    app, access = health_app(role, checks), access_of(settings, role)
    if access is None:
        yield
        return
    access.begin()
    guard(app, access, HEALTH)
    async with health_listener(role, app, settings.health.host, port, access.tls):
        yield


async def branch(settings: Settings) -> None:
    key = await asyncio.to_thread(redaction_key, settings.store.path.parent)
    redactor = Redactor(settings.redaction, key)
    branching = settings.branching
    # Our own token is for our own gateway, and for no other server.
    if branching.policy_url == settings.control_url and not branching.policy_token.get_secret_value():
        branching = branching.model_copy(update={"policy_token": SecretStr(own_token(Role.SERVE))})
    policy = PolicyClient(branching.policy_url, token=branching.policy_token.get_secret_value())

    async def is_served() -> str:
        await policy.models()
        return ""

    checks = {"log": reachable(settings.kafka.bootstrap), "policy": is_served}
    async with policy, health_interface(settings, Role.BRANCH, settings.health.branch_port, checks):
        await branch_role.serve(settings.kafka, branching, stop_on_signals(), redactor)


async def serve(settings: Settings) -> None:
    access, stop = access_of(settings, Role.SERVE), stop_on_signals()
    await serve_role.serve(
        settings.serving,
        settings.store_url,
        settings.kafka,
        stop,
        settings.gate,
        access,
        settings.adapters,
        add_pages,
    )


async def learn(settings: Settings) -> None:
    homes = [settings.of_group(name).home for name in (DEFAULT_GROUP, *settings.adapters.groups)]

    async def learns() -> str:
        reports = [await asyncio.to_thread(learner_report, home, ()) for home in homes]
        found = [each.status for each in reports if each.status is not None]
        return "; ".join(status.error for status in found if status.phase is LearnerPhase.PAUSED)

    checks = {
        "learner": learns,
        "store": answers(f"{settings.store_url}/readyz"),
        "gateway": answers(f"{settings.control_url}/healthz"),
    }
    stop = stop_on_signals()
    async with (
        health_interface(settings, Role.LEARN, settings.health.learn_port, checks),
        learner_in_turn(settings.home, stop) as has_turn,
    ):
        if has_turn:
            await learn_role.serve(settings, stop)


async def assemble(settings: Settings) -> None:
    keys, access = settings.admission.principals, access_of(settings, Role.ASSEMBLE)
    await assemble_role.serve(settings.kafka, settings.assembly, stop_on_signals(), keys, access)


async def otlp(settings: Settings) -> None:
    await otlp_role.serve(settings.kafka, settings.otlp, stop_on_signals(), access_of(settings, Role.OTLP))


RUN: dict[Role, Callable[[Settings], Awaitable[None]]] = {
    Role.RECORD: record,
    Role.BRANCH: branch,
    Role.LEARN: learn,
    Role.SERVE: serve,
    Role.ASSEMBLE: assemble,
    Role.OTLP: otlp,
}
