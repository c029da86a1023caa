"""The assemble role over HTTP: `/status` answers with an `AssemblyStatus`, `/metrics` with it for Prometheus."""

import asyncio
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from fastapi import FastAPI, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from streams.access.access import Access
from streams.access.guard import guard
from streams.access.tokens import AccessRole
from streams.assembly.state import AssemblyState
from streams.assembly.status import AssemblyStatus
from streams.runtime.health import Check, add_health
from streams.runtime.metrics import process_registry
from streams.runtime.tally import Tally

NEEDS = {"/status": AccessRole.READ, "/metrics": AccessRole.READ}


def build_status_app(
    tally: Tally[AssemblyStatus],
    state: AssemblyState,
    checks: Mapping[str, Check] | None = None,
    access: Access | None = None,
) -> FastAPI:
    """`checks` are those of `/readyz` beside that of the state. `access` is by default that of no tokens."""
    app = FastAPI(title="Ratchet assembler", docs_url=None, redoc_url=None, openapi_url=None)
    guard(app, access or Access(), NEEDS)

    async def is_readable() -> str:
        await asyncio.to_thread(state.unfinished, time.time())
        return ""

    add_health(app, {"state": is_readable, **(checks or {})})

    # Not coroutines: the state may be busy, and the server must not wait for it.
    @app.get("/status")
    def status() -> AssemblyStatus:
        now = time.time()
        count, silent_s, waiting = state.unfinished(now)
        first_s, last_s = state.settling(now)
        counted = {"open": count, "open_s": silent_s, "waiting_feedback": waiting}
        return tally.status.model_copy(update=counted | {"next_settles_s": first_s, "all_settle_s": last_s})

    @app.get("/metrics")
    def metrics() -> Response:
        return Response(expose(status()), media_type=CONTENT_TYPE_LATEST)

    return app


def expose(status: AssemblyStatus) -> bytes:
    """All figures in Prometheus' text format."""
    return generate_latest(process_registry("assemble", AssemblyMetrics(status)))


@dataclass(frozen=True, slots=True, eq=False)
class AssemblyMetrics(Collector):
    """The figures of one process; counters are since its start."""

    status: AssemblyStatus

    def collect(self) -> Iterator[Metric]:
        status = self.status
        for name, meaning, gauge in (
            ("ratchet_assembly_open", "Traces and conversations that are not complete yet.", status.open),
            (
                "ratchet_assembly_open_seconds",
                "Silence of the oldest trace or conversation that is not complete.",
                status.open_s,
            ),
            (
                "ratchet_assembly_next_settles_seconds",
                "Time until the first open trace or conversation is complete.",
                status.next_settles_s,
            ),
            (
                "ratchet_assembly_all_settle_seconds",
                "Time until all open traces and conversations are complete.",
                status.all_settle_s,
            ),
            ("ratchet_assembly_waiting_feedback", "Feedback whose call has not come yet.", status.waiting_feedback),
        ):
            yield GaugeMetricFamily(name, meaning, value=gauge)
        for name, meaning, value in (
            ("ratchet_assembly_repeated", "Records that had come before.", status.repeated),
            ("ratchet_assembly_unreadable", "Records that were put aside as dead letters.", status.unreadable),
            ("ratchet_assembly_steps", "Steps that were assembled.", status.steps),
            ("ratchet_assembly_outcomes", "Outcomes that were assembled.", status.outcomes),
            ("ratchet_assembly_too_large", "Events that no broker takes.", status.too_large),
            ("ratchet_assembly_unusable_evaluations", "Evaluations of no use.", status.unusable_evaluations),
            ("ratchet_assembly_unusable_feedback", "Feedback on no known call.", status.unusable_feedback),
            ("ratchet_assembly_superseded", "Replies that others to the same took the place of.", status.superseded),
        ):
            yield CounterMetricFamily(name, meaning, value=value)
        absent = CounterMetricFamily(
            "ratchet_assembly_calls_without_content", "Model calls without content, by the reason.", labels=["reason"]
        )
        for reason, count in status.absences.items():
            absent.add_metric([reason], count)
        yield absent
        unrecognised = CounterMetricFamily(
            "ratchet_assembly_unrecognised_spans", "Spans like model calls in no known dialect.", labels=["name"]
        )
        for name, count in status.unrecognised.items():
            unrecognised.add_metric([name], count)
        yield unrecognised
