"""Real agents with real instrumentation, through the otlp role and a real broker to the events topic."""

import itertools
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import httpx
import pytest
from kafka import KafkaConsumer
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as trace_service

from ratchet_client.crash_points import CrashPoint
from ratchet_client.events import EVENT, OutcomeEvent, StepEvent
from ratchet_client.messages import Message
from streams.kafka.settings import KafkaSettings
from streams.trust.rules import branch_request
from tests.builders.spans import conventions, states, stored
from tests.integration.otlp_role import OtlpRole, otlp_role_of
from tests.waiting import until

AGENT = """
import json, sys
import openai
from opentelemetry._logs import LogRecord
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

kind, otlp, inference = sys.argv[1:]
resource = Resource.create({"service.name": "kitchen-agent", "service.namespace": "shop"})
traces, logs = TracerProvider(resource=resource), LoggerProvider(resource=resource)
spans = OTLPSpanExporter(endpoint=f"{otlp}/v1/traces", compression=Compression.Gzip)
traces.add_span_processor(BatchSpanProcessor(spans))
logs.add_log_record_processor(BatchLogRecordProcessor(OTLPLogExporter(endpoint=f"{otlp}/v1/logs")))
if kind.startswith("openinference"):
    from openinference.instrumentation.openai import OpenAIInstrumentor
    OpenAIInstrumentor().instrument(tracer_provider=traces)
else:
    from opentelemetry.instrumentation.openai import OpenAIInstrumentor
    instrumentor = OpenAIInstrumentor(use_attributes=kind == "openllmetry")
    instrumentor.instrument(tracer_provider=traces, logger_provider=logs)

client = openai.OpenAI(base_url=f"{inference}/v1", api_key="none")
chat = [{"role": "system", "content": "You play."}, {"role": "user", "content": "You are in a kitchen."}]

def play():
    for observation in ("The fridge is open.", "Taken.", "Yum."):
        reply = client.chat.completions.create(model="base", messages=chat, max_tokens=6, temperature=1, seed=3)
        chat.append({"role": "assistant", "content": reply.choices[0].message.content})
        chat.append({"role": "user", "content": observation})

if kind == "openinference-sessions":
    from openinference.instrumentation import using_session
    with using_session("talk-1"):
        play()
else:
    told = {"ratchet.task.environment": "kitchen", "ratchet.task.id": "k/1", "ratchet.task.seed": 5}
    with traces.get_tracer("agent").start_as_current_span("run", attributes=told):
        play()
        verdict = {"gen_ai.evaluation.name": "task_success", "gen_ai.evaluation.score.label": "pass"}
        logs.get_logger("judge").emit(LogRecord(event_name="gen_ai.evaluation.result", attributes=verdict))
traces.shutdown()
logs.shutdown()
print(json.dumps(chat))
"""


# The role sees little of the cluster, so one kind of it is enough for each change.
NIGHTLY_OVER_KAFKA = pytest.mark.parametrize(
    "cluster", ["tansu", pytest.param("apache-kafka", marks=pytest.mark.nightly)], indirect=True
)


@pytest.fixture
def role(kafka: KafkaSettings, tmp_path: Path) -> Iterator[OtlpRole]:
    with otlp_role_of(kafka, tmp_path) as started:
        yield started


@pytest.fixture
def events(kafka: KafkaSettings) -> Callable[[int], list[StepEvent | OutcomeEvent]]:
    """Waits until that many different events are on the topic, and a little longer for more."""

    def read(count: int) -> list[StepEvent | OutcomeEvent]:
        consumer = KafkaConsumer(
            bootstrap_servers=kafka.bootstrap, auto_offset_reset="earliest", group_id=None, enable_auto_commit=False
        )
        consumer.subscribe([kafka.events_topic])
        found: dict[str, StepEvent | OutcomeEvent] = {}
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            for record in itertools.chain(*consumer.poll(timeout_ms=200).values()):
                event = EVENT.validate_json(record.value)
                assert isinstance(event, StepEvent | OutcomeEvent)
                assert record.key == event.episode_id.encode()
                assert found.setdefault(event.event_id, event) == event, "an event was published in two versions"
            if len(found) >= count:
                deadline = min(deadline, time.monotonic() + 1)
        consumer.close()
        return list(found.values())

    return read


def steps_of(events: list[StepEvent | OutcomeEvent]) -> list[StepEvent]:
    return sorted((event for event in events if isinstance(event, StepEvent)), key=lambda step: step.step)


def assert_one_growing_chat(steps: list[StepEvent], chat: list[Message]) -> None:
    """The steps are what the agent says it did, and what Ratchet can branch and train on."""
    assert len({step.episode_id for step in steps}) == 1
    assert [step.messages for step in steps] == [tuple(chat[: 2 + 2 * number]) for number in range(len(steps))]
    assert [step.action for step in steps] == chat[2::2]
    assert [step.observation for step in steps] == [*((item,) for item in chat[3:-1:2]), ()]
    assert [step.done for step in steps] == [False, False, True]
    assert branch_request("episode", stored(steps), "trusted") is not None


@NIGHTLY_OVER_KAFKA
@pytest.mark.slow
@pytest.mark.parametrize(
    "kind",
    [
        *("openllmetry", "openinference"),
        *(pytest.param(kind, marks=pytest.mark.nightly) for kind in ("openllmetry-events", "openinference-sessions")),
    ],
)
def test_what_an_instrumented_agent_does_arrives_as_one_append_only_conversation(
    kind: str,
    role: OtlpRole,
    inference_url: str,
    events: Callable[[int], list[StepEvent | OutcomeEvent]],
) -> None:
    role.start()
    done = subprocess.run(
        [sys.executable, "-c", AGENT, kind, role.url, inference_url],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    chat = [Message.model_validate(item) for item in json.loads(done.stdout.splitlines()[-1])]
    sessions = kind == "openinference-sessions"
    found = events(3 if sessions else 4)
    steps = steps_of(found)
    assert_one_growing_chat(steps, chat)
    assert {(step.agent, step.principal, step.actor.adapter) for step in steps} == {("kitchen-agent", "shop", "base")}
    outcomes = [event for event in found if isinstance(event, OutcomeEvent)]
    if sessions:
        assert (steps[0].episode_id, outcomes) == ("talk-1", [])
    else:
        assert steps[0].task.model_dump() == {"environment": "kitchen", "task_id": "k/1", "seed": 5}
        assert [(outcome.episode_id, outcome.success) for outcome in outcomes] == [(steps[0].episode_id, True)]
    assert role.end(signal.SIGTERM) == 0


def request(trace: int, first: int = 0, last: int = 3, root: bool = True) -> bytes:
    """The calls `first` to `last` of a game as trace number `trace`, children before their root."""
    message = trace_service.ExportTraceServiceRequest()
    spans = message.resource_spans.add().scope_spans.add().spans
    for number, state in list(enumerate(states()))[first:last]:
        span = spans.add(
            trace_id=trace.to_bytes(16),
            span_id=(number + 1).to_bytes(8),
            parent_span_id=(99).to_bytes(8),
            start_time_unix_nano=number + 1,
            end_time_unix_nano=number + 2,
        )
        for key, value in conventions(*state).items():
            span.attributes.add(key=key).value.string_value = str(value)
    if root:
        spans.add(trace_id=trace.to_bytes(16), span_id=(99).to_bytes(8), start_time_unix_nano=1, end_time_unix_nano=9)
    return bytes(message.SerializeToString())


def send(role: OtlpRole, body: bytes) -> None:
    """Until it is taken, as exporters do."""
    until(lambda: sent_once(role, body), "the request is taken", errors=(httpx.TransportError,))


def sent_once(role: OtlpRole, body: bytes) -> bool:
    headers = {"content-type": "application/x-protobuf"}
    return httpx.post(f"{role.url}/v1/traces", content=body, headers=headers).is_success


def died_or_assembled(role: OtlpRole, steps: int) -> bool:
    try:
        return bool(httpx.get(f"{role.assembler_url}/status").json()["steps"] >= steps)
    except httpx.TransportError:
        return role.process is not None and role.process.poll() is not None


@pytest.mark.nightly
def test_repeated_and_partial_exports_of_a_trace_become_one_episode(
    role: OtlpRole, events: Callable[[int], list[StepEvent | OutcomeEvent]]
) -> None:
    role.start()
    for body in (request(1, 2, 3, root=False), request(1, 0, 1, root=False), request(1, 2, 3), request(1, 1, 3)):
        send(role, body)
    send(role, request(2))
    steps = steps_of(events(6))
    assert [step.step for step in steps] == [0, 0, 1, 1, 2, 2]
    assert {step.episode_id for step in steps} == {f"{trace:032x}" for trace in (1, 2)}
    status = httpx.get(f"{role.assembler_url}/status").json()
    assert (status["steps"], status["repeated"]) == (6, 3)
    assert httpx.get(f"{role.url}/status").json()["accepted"] == 11


@NIGHTLY_OVER_KAFKA
@pytest.mark.slow
@pytest.mark.parametrize(
    "crash_at",
    [
        f"{CrashPoint.COMMIT_AFTER}@3",
        *(
            pytest.param(place, marks=pytest.mark.nightly)
            for place in (
                f"{CrashPoint.COMMIT_BEFORE}@1",
                f"{CrashPoint.COMMIT_AFTER}@1",
                f"{CrashPoint.COMMIT_BEFORE}@3",
                f"{CrashPoint.OUTBOX_PUBLISH_BEFORE}@1",
                f"{CrashPoint.OUTBOX_PUBLISH_AFTER}@1",
                f"{CrashPoint.ACK_BEFORE}@1",
                f"{CrashPoint.ACK_AFTER}@1",
            )
        ),
    ],
)
def test_wherever_the_role_is_killed_every_accepted_span_becomes_its_event(
    crash_at: str, role: OtlpRole, events: Callable[[int], list[StepEvent | OutcomeEvent]]
) -> None:
    role.start(crash_at)
    traces = range(1, 6)
    for trace in traces:
        try:
            assert sent_once(role, request(trace))
        except httpx.TransportError:
            break
        until(partial(died_or_assembled, role, 3 * trace))
    assert role.process is not None
    assert role.process.wait(60) == -signal.SIGKILL
    role.start()
    for trace in traces:
        send(role, request(trace))  # what was not answered, exporters send again
    steps = steps_of(events(15))
    assert sorted((step.episode_id, step.step) for step in steps) == [
        (f"{trace:032x}", number) for trace in traces for number in range(3)
    ]
