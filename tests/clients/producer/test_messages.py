"""Agents give the producer messages as they have them."""

from typing import Any

import pytest
from openai.types.chat import ChatCompletionMessage
from pydantic import BaseModel

from ratchet_client.events import EVENT, Actor, Message, StepEvent, Task
from ratchet_client.producer import Producer
from streams.kafka.broker import EmbeddedBroker
from streams.kafka.settings import KafkaSettings
from streams.kafka.topics import create_topics
from tests.builders.published import read

TASK = Task(environment="shop", task_id="orders/17")
EXPERT = Actor(kind="expert")


class Spoken(BaseModel):
    """A message of a user, as an SDK might have it."""

    role: str = "user"
    content: str = "Thanks."
    name: str | None = None


STATE = (Message(role="user", content="Is it warm?"),)


def test_a_step_takes_messages_and_tools_as_an_openai_client_has_them() -> None:
    call = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Bern"}'}}
    reply = {"role": "assistant", "content": None, "tool_calls": [call], "annotations": []}
    answer = {"role": "tool", "tool_call_id": "call_1", "content": "18 degrees"}
    tool = {"type": "function", "function": {"name": "weather", "parameters": {"default": None}}}
    with EmbeddedBroker() as broker:
        create_topics(KafkaSettings(bootstrap=broker.bootstrap, partitions=1))
        with Producer(broker.bootstrap, agent="assistant", principal="tenant/user") as producer:
            episode = producer.episode(TASK, EXPERT)
            assert episode.step([{"role": "user", "content": "Is it warm?"}], reply, [answer], tools=[tool])
            assert episode.step((*STATE,), Message(role="assistant", content="Yes."), "Thanks.", done=True)
            assert not episode.step(STATE, {"role": "user", "content": "an action of nobody"}, [])
        records = read(broker.bootstrap, "ratchet.events")
    first, second = (EVENT.validate_json(value) for _, value, _ in records)
    assert isinstance(first, StepEvent)
    assert isinstance(second, StepEvent)
    assert (first.schema_version, first.tools) == (2, (tool,))
    assert first.action == Message.model_validate(reply)
    assert first.observation == (Message.model_validate(answer),)
    assert (second.tools, second.observation) == ((), (Message(role="user", content="Thanks."),))


def test_none_is_nothing_and_what_is_no_message_or_tool_is_dropped_and_never_raised() -> None:
    with EmbeddedBroker() as broker:
        create_topics(KafkaSettings(bootstrap=broker.bootstrap, partitions=1))
        with Producer(broker.bootstrap, agent="assistant", principal="tenant/user") as producer:
            episode = producer.episode(TASK, EXPERT)
            reply = Message(role="assistant", content="Yes.")
            assert episode.step(STATE, reply, None, tools=None)
            wrong: Any = object()
            assert not episode.step(wrong, reply, [])
            assert not episode.step(STATE, wrong, [])
            assert not episode.step(STATE, reply, wrong)
            assert not episode.step(STATE, reply, [], tools=[wrong])
            assert not episode.step(STATE, reply, [], tools=wrong)
            assert not episode.outcome(verifier="desk", success=True, score=1.0, evidence=wrong)
            assert not producer.publish(wrong)
            assert producer.stats().dropped == 7
        (record,) = read(broker.bootstrap, "ratchet.events")
    event = EVENT.validate_json(record[1])
    assert isinstance(event, StepEvent)
    assert (event.tools, event.observation) == ((), ())


def test_a_step_takes_the_messages_of_the_sdk_as_what_they_dump() -> None:
    call = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": "{}"}}
    reply = ChatCompletionMessage.model_validate({"role": "assistant", "content": None, "tool_calls": [call]})
    with EmbeddedBroker() as broker:
        create_topics(KafkaSettings(bootstrap=broker.bootstrap, partitions=1))
        with Producer(broker.bootstrap, agent="assistant", principal="tenant/user") as producer:
            assert producer.episode(TASK, EXPERT).step([*STATE, reply], reply, [Spoken()])
        ((_, value, _),) = read(broker.bootstrap, "ratchet.events")
    event = EVENT.validate_json(value)
    assert isinstance(event, StepEvent)
    expected = Message.model_validate(reply.model_dump(exclude_none=True))
    assert (event.messages[1], event.action, event.observation) == (
        expected,
        expected,
        (Message(role="user", content="Thanks."),),
    )


def test_a_message_that_is_dropped_is_told_by_its_field_and_with_a_remedy(caplog: pytest.LogCaptureFixture) -> None:
    secret = "a secret"
    wrong: list[tuple[Any, Any, Any, str]] = [
        (STATE, object(), [], "action: model_type"),
        ([*STATE, object()], STATE[0], [], "messages.1: model_type"),
        (STATE, {"role": "assistant", "content": "x"}, [object()], "observation.0: model_type"),
        (secret, {"role": "assistant", "content": "x"}, [], "messages: tuple_type"),
    ]
    for messages, action, observation, told in wrong:
        with Producer("localhost:1", agent="a", principal="p", flush_timeout_s=0.1) as producer:
            assert not producer.episode(TASK, EXPERT).step(messages, action, observation)
        said = caplog.text
        caplog.clear()
        assert told in said
        assert "model_dump(exclude_none=True)" in said
        assert secret not in said
