"""The trace of a request goes on in the roles behind the gateway: where its call is assembled and its event stored."""

import asyncio
from pathlib import Path

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from daemon.registry.registry import Registry
from streams.assembly import role as assemble_role
from streams.assembly.settings import AssemblySettings
from streams.intake import role as record_role
from streams.kafka.settings import KafkaSettings
from streams.kafka.topics import create_topics
from streams.runtime import tracing
from streams.runtime.processes import free_port
from streams.store.client import StoreClient
from streams.store.settings import StoreSettings
from streams.trust.holdout import HoldoutSettings
from tests.builders.published import read
from tests.daemon.conftest import serve_role
from tests.daemon.serving.test_tracing import ABOVE, QUESTION, SECRET, Collector
from tests.served import served
from tests.waiting import eventually


@pytest.mark.slow
async def test_a_request_is_one_trace_until_its_event_is_stored(
    inference_url: str, kafka: KafkaSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    collector, stop = Collector(), asyncio.Event()
    store = StoreSettings(path=tmp_path / "store.duckdb", port=free_port(), batch_s=0.1)
    assembly = AssemblySettings(path=tmp_path / "assembly.sqlite", port=free_port(), call_idle_s=0.5)
    await asyncio.to_thread(create_topics, kafka)
    with served(collector.app()) as url:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", url)
        monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
        with tracing.traced("all"):
            running = (
                asyncio.create_task(record_role.serve(kafka, store, HoldoutSettings(), stop)),
                asyncio.create_task(assemble_role.serve(kafka, assembly, stop)),
            )
            async with serve_role(Registry(tmp_path / "home"), inference_url, kafka=kafka) as serving:
                answer = await serving.post("/v1/chat/completions", json=QUESTION, headers={"traceparent": ABOVE})
                assert answer.is_success
                await eventually(lambda: "record" in collector.spans(), "the stored event is traced", within_s=60)
            async with StoreClient(f"http://127.0.0.1:{store.port}") as client:
                stored = (await client.query("SELECT receipt FROM transitions")).to_pylist()
            stop.set()
            await asyncio.gather(*running)
    assert stored == [{"receipt": answer.headers["x-ratchet-receipt"]}]
    spans = collector.spans()
    request = spans["POST /v1/chat/completions"]
    for name in ("assemble", "record"):
        assert spans[name].trace_id == bytes.fromhex(ABOVE.split("-")[1])
        assert (spans[name].parent_span_id, spans[name].kind) == (request.span_id, Span.SPAN_KIND_CONSUMER)
        assert not spans[name].attributes
    assert not any(SECRET.encode() in body for body in collector.bodies)
    [(_, _, headers)] = read(kafka.bootstrap, kafka.events_topic)
    assert headers["traceparent"].decode().split("-")[1:3] == [ABOVE.split("-")[1], request.span_id.hex()]
