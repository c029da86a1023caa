"""The serve role needs no other role to have made the topic that it publishes to."""

import asyncio
import threading
import time
from functools import partial

from fastapi import FastAPI

from daemon.registry.registry import Registry
from streams.calls.records import ANY_CALL_RECORD, CapturedCall, Feedback
from streams.kafka.broker import EmbeddedBroker
from streams.kafka.clients import admin
from streams.kafka.settings import KafkaSettings
from streams.kafka.topics import end_offsets
from tests.builders.topics import with_own_topics
from tests.daemon.conftest import serve_role
from tests.integration.recording import read_all
from tests.served import served
from tests.waiting import eventually


def topics(kafka: KafkaSettings) -> set[str]:
    with admin("test", kafka.bootstrap, kafka.security) as client:
        return set(client.list_topics())


async def test_calls_and_feedback_arrive_where_no_other_role_ever_ran(
    shared_broker: EmbeddedBroker, registry: Registry
) -> None:
    kafka = with_own_topics(KafkaSettings(bootstrap=shared_broker.bootstrap, partitions=3))
    assert topics(kafka).isdisjoint(kafka.topics)
    model = FastAPI()

    @model.get("/v1/models")
    def models() -> dict[str, object]:
        return {"object": "list", "data": [{"id": "base", "object": "model", "root": "base", "parent": None}]}

    @model.post("/v1/chat/completions")
    def reply() -> dict[str, object]:
        choice = {"index": 0, "message": {"role": "assistant", "content": "Hi."}, "finish_reason": "stop"}
        return {"id": "c1", "object": "chat.completion", "choices": [choice]}

    with served(model, lifespan="off") as upstream:
        async with serve_role(registry, upstream, kafka=kafka) as client:
            made = partial(asyncio.to_thread, lambda: kafka.calls_topic in topics(kafka))
            await eventually(made, "the topic is made before anything is published")
            asked = {"model": "assistant", "messages": [{"role": "user", "content": "Hello."}]}
            answer = await client.post("/v1/chat/completions", json=asked)
            told = {"receipt": answer.headers["x-ratchet-receipt"], "success": True, "verifier": "test"}

            async def taken() -> bool:
                return (await client.post("/v1/feedback", json=told)).status_code == 202

            await eventually(taken, "feedback is taken")
            await eventually(partial(asyncio.to_thread, lambda: len(records(kafka)) >= 2), "the call is in the log")
    found = records(kafka)
    assert {type(each) for each in found} == {CapturedCall, Feedback}
    assert len(end_offsets(kafka.bootstrap, kafka.calls_topic)) == kafka.partitions
    # The topics of others are theirs to make.
    assert topics(kafka) & set(kafka.topics) == {kafka.calls_topic}


def records(kafka: KafkaSettings) -> list[CapturedCall | Feedback]:
    return [ANY_CALL_RECORD.validate_json(value) for value, _ in read_all(kafka, kafka.calls_topic)]


async def test_without_kafka_the_gateway_starts_and_ends_at_once(registry: Registry) -> None:
    model = FastAPI()
    model.get("/v1/models")(lambda: {"object": "list", "data": [{"id": "base", "object": "model"}]})
    began = time.monotonic()
    with served(model, lifespan="off") as upstream:
        async with serve_role(registry, upstream) as client:
            assert (await client.get("/v1/models")).is_success
            assert "topics" in {thread.name for thread in threading.enumerate()}
    assert time.monotonic() - began < 10
