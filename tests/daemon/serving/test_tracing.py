"""One request is one trace: at the gateway, at the inference server and in the log. Nothing that is said is in it."""

import json

import pytest
from fastapi import FastAPI, Request, Response
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from daemon.registry.registry import Registry
from ratchet_client.errors import ConfigurationError
from streams.kafka.settings import KafkaSettings
from streams.runtime import tracing
from tests.builders.published import read
from tests.daemon.conftest import serve_role
from tests.served import served
from tests.waiting import eventually

SECRET = "zanzibar-4711"
ABOVE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
QUESTION = {"model": "assistant", "messages": [{"role": "user", "content": SECRET}], "max_tokens": 2, "user": SECRET}


class Collector:
    """An OTLP receiver: the bodies that came, and the spans in them by their names."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        self.services: set[str] = set()

    def app(self) -> FastAPI:
        app = FastAPI()

        @app.post("/v1/traces")
        async def traces(request: Request) -> Response:
            self.bodies.append(await request.body())
            return Response(media_type="application/x-protobuf")

        return app

    def spans(self) -> dict[str, Span]:
        found: dict[str, Span] = {}
        for body in self.bodies:
            for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                self.services |= {
                    each.value.string_value for each in resource.resource.attributes if each.key == "service.name"
                }
                found |= {span.name: span for scope in resource.scope_spans for span in scope.spans}
        return found


async def test_one_request_is_one_trace_from_the_gateway_to_the_log(
    inference_url: str, registry: Registry, kafka: KafkaSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    collector = Collector()
    with served(collector.app()) as url:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", url)
        monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
        with tracing.traced("serve"):
            async with serve_role(registry, inference_url, kafka=kafka) as serving:
                answer = await serving.post(
                    "/v1/chat/completions", json=QUESTION, headers={"traceparent": ABOVE, "x-request-id": "request-7"}
                )
                assert answer.is_success
                await eventually(lambda: "capture" in collector.spans(), "the record of the call is traced")
    spans = collector.spans()
    request, engine, capture = (spans[name] for name in ("POST /v1/chat/completions", "engine", "capture"))
    trace, above = (bytes.fromhex(part) for part in ABOVE.split("-")[1:3])
    assert {span.trace_id for span in (request, engine, capture)} == {trace}
    assert request.parent_span_id == above
    assert engine.parent_span_id == capture.parent_span_id == request.span_id
    told = {each.key: each.value for each in request.attributes}
    assert told["ratchet.request_id"].string_value == "request-7"
    assert told["http.response.status_code"].int_value == answer.status_code
    assert collector.services == {"ratchet-serve"}
    assert not any(SECRET.encode() in body for body in collector.bodies)
    # Who reads the record can go on with the trace.
    [(_, value, headers)] = read(kafka.bootstrap, kafka.calls_topic)
    assert json.loads(value)["receipt"] == answer.headers["x-ratchet-receipt"]
    assert bytes.fromhex(headers["traceparent"].decode().split("-")[1]) == trace


async def test_a_failure_is_in_the_trace_by_its_kind(
    registry: Registry, inference_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    collector = Collector()
    with served(collector.app()) as url:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", f"{url}/v1/traces")
        with tracing.traced("serve"):
            async with serve_role(registry, inference_url) as serving:
                assert (await serving.post("/v1/chat/completions", json={"model": SECRET})).status_code == 404
                assert (await serving.get(f"/v1/models/{SECRET}")).status_code == 404
    spans = collector.spans()
    # A path of the client's own is not in a name, of which there are few.
    assert spans.keys() == {"POST /v1/chat/completions", "GET /v1/models/{name:path}"}
    assert not any(SECRET.encode() in body for body in collector.bodies)


async def test_without_the_variables_nothing_is_traced_or_sent_on(
    inference_url: str, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)
    with tracing.traced("serve"):
        assert not tracing.is_on()
        assert tracing.context() == {}
        async with serve_role(registry, inference_url) as serving:
            assert (await serving.post("/v1/chat/completions", json=QUESTION)).is_success


def test_a_protocol_that_is_not_spoken_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4317")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
    with (
        pytest.raises(ConfigurationError, match="set OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf"),
        tracing.traced("serve"),
    ):
        pytest.fail("it is not traced")
