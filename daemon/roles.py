"""The roles of a running Ratchet, each a process of its own: `ratchet run --roles ROLE` ends up here."""

import asyncio
from collections.abc import Awaitable, Callable
from enum import StrEnum

from daemon.config import Settings
from daemon.learning import role as learn_role
from daemon.serving import role as serve_role
from streams.assembly import role as assemble_role
from streams.branching import role as branch_role
from streams.intake import role as record_role
from streams.otlp import role as otlp_role
from streams.redaction.key import redaction_key
from streams.redaction.redactor import Redactor
from streams.runtime.processes import stop_on_signals


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


async def record(settings: Settings) -> None:
    await record_role.serve(
        settings.kafka,
        settings.store,
        settings.holdout,
        stop_on_signals(),
        settings.admission,
        settings.redaction,
        settings.trust,
    )


async def branch(settings: Settings) -> None:
    key = await asyncio.to_thread(redaction_key, settings.store.path.parent)
    redactor = Redactor(settings.redaction, key)
    await branch_role.serve(settings.kafka, settings.branching, stop_on_signals(), redactor)


async def serve(settings: Settings) -> None:
    await serve_role.serve(settings.serving, settings.store_url, settings.kafka, stop_on_signals())


async def learn(settings: Settings) -> None:
    await learn_role.serve(settings, stop_on_signals())


async def assemble(settings: Settings) -> None:
    await assemble_role.serve(settings.kafka, settings.assembly, stop_on_signals(), settings.admission.principals)


async def otlp(settings: Settings) -> None:
    await otlp_role.serve(settings.kafka, settings.otlp, stop_on_signals())


RUN: dict[Role, Callable[[Settings], Awaitable[None]]] = {
    Role.RECORD: record,
    Role.BRANCH: branch,
    Role.LEARN: learn,
    Role.SERVE: serve,
    Role.ASSEMBLE: assemble,
    Role.OTLP: otlp,
}
