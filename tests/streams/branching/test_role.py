"""The branch role over a real broker, a real Faust worker and real sandboxes.

The policy is a small HTTP server that always says the same: the real one needs torch, which this layer does without.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from threading import Event, Thread
from typing import ClassVar

import pytest
from kafka import KafkaConsumer, KafkaProducer
from structlog.testing import capture_logs

from ratchet_client.events import Task
from ratchet_client.messages import text_of
from streams.branch_events import NO_SANDBOX, BranchRequest, BranchResult, RecoveryResult
from streams.branching.role import BranchContext, serve, work
from streams.branching.settings import BranchingSettings, RecoverySettings
from streams.kafka.records import Received
from streams.kafka.settings import KafkaSettings
from streams.redaction.redactor import Redactor
from streams.redaction.settings import RedactionSettings
from streams.sandboxes.pool import SandboxPool
from tests.builders.branch_requests import played
from tests.builders.policies import FixedPolicy, said
from tests.builders.redacted import redacted

TASK = Task(environment="textworld_express", task_id="twc/train/17", seed=17)


class ScriptedPolicy(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        replies = ["Inventory.", "dance", "open washing machine"] * body["n"]
        choices = [
            {"message": {"role": "assistant", "content": reply}, "finish_reason": "stop"}
            for reply in replies[: body["n"]]
        ]
        payload = json.dumps({"model": "ratchet-1-abc", "choices": choices}).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(payload)))
        self.end_headers()
        self.wfile.write(payload)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: the tests look at the results."""


@pytest.fixture
def policy_url() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), ScriptedPolicy) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.parametrize(("setting", "limits"), [(30, (30, 60)), (None, None)])
def test_a_worker_is_limited_to_so_many_branches_a_minute(
    setting: int | None, limits: tuple[float, float] | None
) -> None:
    limiter = BranchContext.of(BranchingSettings(branches_per_minute=setting), {}, FixedPolicy()).limiter
    assert (limiter and (limiter.max_rate, limiter.time_period)) == limits


@asynccontextmanager
async def branch_role(
    kafka: KafkaSettings, settings: BranchingSettings, redactor: Redactor | None = None
) -> AsyncIterator[None]:
    stop = asyncio.Event()
    role = asyncio.create_task(serve(kafka, settings, stop, redactor))
    try:
        yield
    finally:
        stop.set()
        await asyncio.wait_for(role, 60)


def send(kafka: KafkaSettings, *values: bytes) -> None:
    producer = KafkaProducer(bootstrap_servers=kafka.bootstrap)
    for value in values:
        producer.send(kafka.branches_topic, key=b"episode", value=value).get(30)
    producer.close()


def receive(kafka: KafkaSettings, topic: str, count: int) -> list[bytes]:
    consumer = KafkaConsumer(
        topic, bootstrap_servers=kafka.bootstrap, auto_offset_reset="earliest", consumer_timeout_ms=60_000
    )
    values = [next(consumer).value for _ in range(count)]
    consumer.close()
    return values


async def recorded() -> BranchRequest:
    async with SandboxPool(TASK.environment) as pool:
        return await played(pool, TASK)


@pytest.mark.slow
async def test_requests_for_known_environments_are_answered_and_others_dropped(
    kafka: KafkaSettings, policy_url: str
) -> None:
    request = await recorded()
    elsewhere = request.model_copy(
        update={
            "event_id": "request-2",
            "episode_id": "episode-2",
            "task": Task(environment="production_shell", task_id="deploy/1"),
        }
    )
    send(kafka, request.to_json(), b"{}", elsewhere.to_json())
    async with branch_role(kafka, BranchingSettings(policy_url=policy_url)):
        values = await asyncio.to_thread(receive, kafka, kafka.transitions_topic, 2 * len(request.steps))
        letters = await asyncio.to_thread(receive, kafka, kafka.dead_letters_topic, 1)
    results = [BranchResult.model_validate_json(value) for value in values]
    branched = sorted((result for result in results if result.request_id == "request-1"), key=lambda r: r.step)
    assert [result.step for result in branched] == list(range(len(request.steps)))
    for result in branched:
        assert (result.fidelity, result.policy) == ("sandbox_replayed", "ratchet-1-abc")
        assert [alternative.action.text for alternative in result.alternatives][:2] == ["inventory", "dance"]
    undone = [result for result in results if result.request_id == "request-2"]
    assert {(result.fidelity, result.alternatives) for result in undone} == {("dropped", ())}
    assert "production_shell" in undone[0].reason
    assert undone[0].reason.startswith(NO_SANDBOX)
    assert letters == [b"{}"]


class Meeting(ScriptedPolicy):
    """The first call is answered once the third has come."""

    calls: ClassVar[Iterator[int]]
    third: ClassVar[Event]

    def do_POST(self) -> None:
        call = next(self.calls)
        if call == 3:
            self.third.set()
        if call > 1 or self.third.wait(20):
            super().do_POST()
        else:
            self.send_error(500)


@pytest.mark.slow
async def test_an_episode_begins_as_soon_as_there_is_room_whatever_takes_long(kafka: KafkaSettings) -> None:
    request = await recorded()
    of_one_step = {"steps": request.steps[:1]}
    requests = [request.model_copy(update=of_one_step | {"event_id": f"request-{number}"}) for number in range(3)]
    Meeting.calls, Meeting.third = count(1), Event()
    with ThreadingHTTPServer(("127.0.0.1", 0), Meeting) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        settings = BranchingSettings(policy_url=url, temperatures=(1.0,), episodes=2, policy_patience_s=0)
        async with branch_role(kafka, settings):
            for each in requests:
                await asyncio.to_thread(send, kafka, each.to_json())
            values = await asyncio.to_thread(receive, kafka, kafka.transitions_topic, 3)
        server.shutdown()
    results = [BranchResult.model_validate_json(value) for value in values]
    assert [result.policy for result in results] == ["ratchet-1-abc"] * 3
    assert results[0].request_id != "request-0"


@pytest.mark.slow
async def test_branching_continues_without_a_policy(kafka: KafkaSettings) -> None:
    request = await recorded()
    send(kafka, request.to_json())
    settings = BranchingSettings(policy_url="http://127.0.0.1:9", policy_patience_s=0.2)
    async with branch_role(kafka, settings):
        values = await asyncio.to_thread(receive, kafka, kafka.transitions_topic, len(request.steps))
    for value in values:
        result = BranchResult.model_validate_json(value)
        assert result.policy == ""
        assert {alternative.source for alternative in result.alternatives} == {"valid_actions"}


@pytest.mark.slow
async def test_a_failed_episode_is_resumed_from_its_states(kafka: KafkaSettings, policy_url: str) -> None:
    request = (await recorded()).model_copy(update={"verdict": "failed"})
    elsewhere = request.model_copy(
        update={"event_id": "request-2", "task": Task(environment="production_shell", task_id="deploy/1")}
    )
    send(kafka, request.to_json(), elsewhere.to_json())
    settings = BranchingSettings(policy_url=policy_url, recovery=RecoverySettings(attempts=2, steps=3))
    async with branch_role(kafka, settings):
        values = await asyncio.to_thread(receive, kafka, kafka.transitions_topic, 2)
    results = {result.request_id: result for result in map(RecoveryResult.model_validate_json, values)}
    tried = results["request-1"]
    assert (tried.fidelity, tried.attempts, tried.policy) == ("sandbox_replayed", 2, "ratchet-1-abc")
    assert 2 <= tried.sandbox_steps <= 6
    assert (results["request-2"].fidelity, results["request-2"].attempts) == ("dropped", 0)
    assert "production_shell" in results["request-2"].reason


@pytest.mark.slow
@pytest.mark.usefixtures("faulty_environments")
async def test_episodes_with_placeholders_are_branched_and_nothing_raw_is_published(
    kafka: KafkaSettings, policy_url: str
) -> None:
    redactor = Redactor(RedactionSettings(), b"key")
    async with SandboxPool("faulty_post") as pool:
        task = Task(environment="faulty_post", task_id="mail/train/1")
        raw = await played(pool, task, said("read", "mail bob@example.com"))
    request = redacted(raw, redactor)
    failed = request.model_copy(update={"event_id": "request-2", "verdict": "failed"})
    send(kafka, request.to_json(), failed.to_json())
    settings = BranchingSettings(policy_url=policy_url, recovery=RecoverySettings(attempts=3, steps=1))
    async with branch_role(kafka, settings, redactor):
        values = await asyncio.to_thread(receive, kafka, kafka.transitions_topic, 3)
    results = [BranchResult.model_validate_json(value) for value in values if b"branch_result" in value]
    assert [(result.fidelity, result.reason) for result in results] == [("sandbox_exact", "")] * 2
    assert any("It goes to <EMAIL_" in text_of(each.observation) for each in results[0].alternatives)
    (tried,) = (RecoveryResult.model_validate_json(value) for value in values if b"recovery_result" in value)
    assert (tried.fidelity, tried.attempts) == ("sandbox_exact", 3)
    assert not [value for value in values if b"example.com" in value or b"tr0ub4dor" in value]


@pytest.mark.usefixtures("faulty_environments")
async def test_the_log_says_of_a_dropped_state_what_the_store_says_and_nothing_raw() -> None:
    kafka, redactor = KafkaSettings(), Redactor(RedactionSettings(), b"key")
    settings = BranchingSettings(recovery=RecoverySettings(attempts=1, steps=1))
    async with SandboxPool("faulty_sound") as pool:
        request = await played(
            pool, Task(environment="faulty_raising", task_id="walk/train/1"), said("bob@x.org", "look")
        )
    failed = request.model_copy(update={"event_id": "request-2", "verdict": "failed"})
    messages = []
    with capture_logs() as logs:
        async with SandboxPool("faulty_raising") as pool:
            context = BranchContext.of(settings, {"faulty_raising": pool}, FixedPolicy(said("look")), redactor)
            for each in (request, failed):
                messages += await work(Received("t", 0, 0, b"k", each.to_json()), kafka, context)
    told = [json.loads(message.body or b"") for message in messages]
    dropped = [each["reason"] for each in told if each["fidelity"] == "dropped"]
    assert dropped
    assert all("<EMAIL_" in reason for reason in dropped)
    assert [entry["reason"] for entry in logs if "dropped" in entry["event"]] == dropped
    assert "bob@x.org" not in repr(logs)
