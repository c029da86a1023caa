"""Feedback is taken by receipt or by episode, is not lost once it is answered, and contradicts itself never."""

import asyncio
from typing import Any

import pytest

from streams.calls.labels import episode_key
from streams.calls.records import ANY_CALL_RECORD, Feedback, new_receipt
from streams.kafka.publisher import Publisher
from streams.kafka.settings import KafkaSettings
from tests.daemon.serving.upstream import CHAT, Bench, bench
from tests.integration.recording import read_all

RECEIPT = new_receipt("0123456789abcdef")


def given(gateway: Bench) -> Feedback:
    (record,) = gateway.log.records
    assert isinstance(record, Feedback)
    return record


async def test_feedback_on_a_receipt_goes_where_its_call_went() -> None:
    async with bench() as gateway:
        receipt = (await gateway.client.post("/v1/chat/completions", json=CHAT)).headers["x-ratchet-receipt"]
        gateway.call()
        body = {
            "receipt": receipt,
            "rating": "up",
            "comment": "Thanks.",
            "evidence": {"shown": 2},
            "verifier": "thumbs",
        }
        answer = await gateway.client.post("/v1/feedback", json=body)
        call, feedback = gateway.log.messages
        gateway.log.messages = [feedback]
        assert call.key == feedback.key
        record = given(gateway)
    assert answer.status_code == 202
    assert answer.json()["feedback_id"] == record.feedback_id
    assert (record.receipt, record.success, record.score, record.verifier) == (receipt, True, 1.0, "thumbs")
    assert record.evidence == {"shown": 2, "comment": "Thanks.", "rating": "up"}


async def test_feedback_on_an_episode_goes_where_its_calls_went_whoever_claims_it() -> None:
    async with bench() as gateway:
        headers = {"x-ratchet-episode": "e-1"}
        await gateway.client.post("/v1/chat/completions", json=CHAT | {"user": "anna"}, headers=headers)
        gateway.call()
        answer = await gateway.client.post("/v1/feedback", json={"episode": "e-1", "score": 0.2, "feedback_id": "f"})
        assert answer.json() == {"feedback_id": "f", "success": False, "score": 0.2, "object": "feedback"}
        call, feedback = gateway.log.messages
    assert call.key == feedback.key == episode_key(None, "e-1").encode()


@pytest.mark.parametrize(
    ("said", "verdict"),
    [
        ({"success": True}, (True, 1.0)),
        ({"success": False}, (False, 0.0)),
        ({"score": 0.5}, (True, 0.5)),
        ({"score": 0.49}, (False, 0.49)),
        ({"rating": "down"}, (False, 0.0)),
        ({"rating": "down", "score": 0.8}, (False, 0.8)),
        ({"success": False, "score": 0.75}, (False, 0.75)),
        ({"success": True, "score": 0.9, "rating": "up"}, (True, 0.9)),
    ],
)
async def test_success_and_score_follow_from_each_other(said: dict[str, Any], verdict: tuple[bool, float]) -> None:
    async with bench() as gateway:
        assert (await gateway.client.post("/v1/feedback", json={"episode": "e"} | said)).status_code == 202
        assert (given(gateway).success, given(gateway).score) == verdict


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({}, "receipt"),
        ({"success": True}, "receipt"),
        ({"receipt": RECEIPT, "episode": "e", "success": True}, "either"),
        ({"receipt": "nonsense", "success": True}, "x-ratchet-receipt"),
        ({"episode": "e"}, "success, score and rating"),
        ({"episode": "e", "comment": "Fine."}, "success, score and rating"),
        ({"episode": "e", "success": True, "rating": "down"}, "contradicts"),
        ({"episode": "e", "success": False, "rating": "up"}, "contradicts"),
        ({"episode": "e", "success": True, "score": 0.1}, "contradicts"),
        ({"episode": "e", "success": False, "score": 1}, "contradicts"),
        ({"episode": "e", "rating": "up", "score": 0}, "contradicts"),
        ({"episode": "e", "rating": "meh"}, "rating"),
        ({"episode": "e", "success": "yes"}, "success"),
        ({"episode": "e", "score": "0.5"}, "score"),
        ({"episode": "e", "score": 3}, "less than or equal to 1"),
        ({"episode": "e", "score": -0.1}, "greater than or equal to 0"),
        ({"episode": "e", "score": True}, "score"),
        ({"episode": "e", "sucess": True}, "sucess"),
        ({"episode": "", "success": True}, "episode"),
        ({"episode": "e", "success": True, "verifier": ""}, "verifier"),
    ],
)
async def test_feedback_that_is_empty_or_contradicts_itself_is_refused(body: dict[str, Any], words: str) -> None:
    async with bench() as gateway:
        answer = await gateway.client.post("/v1/feedback", json=body)
        assert answer.status_code == 422
        assert words in answer.json()["error"]["message"]
        assert not gateway.log.messages


async def test_feedback_that_the_log_does_not_have_is_asked_for_again() -> None:
    async with bench() as gateway:
        gateway.log.away = True
        body = {"episode": "e", "success": True, "feedback_id": "f-1"}
        answer = await gateway.client.post("/v1/feedback", json=body)
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "2")
        gateway.log.away = False
        for _ in range(2):
            assert (await gateway.client.post("/v1/feedback", json=body)).json()["feedback_id"] == "f-1"
        first, second = gateway.log.records
    assert first.record_id == second.record_id


async def test_the_principal_of_a_token_is_that_of_the_feedback() -> None:
    async with bench(tokens={"anna": "a" * 16}) as gateway:
        body = {"episode": "e", "success": True, "principal": "ben"}
        headers = {"authorization": "Bearer " + "a" * 16}
        assert (await gateway.client.post("/v1/feedback", json=body, headers=headers)).status_code == 202
        assert (given(gateway).principal, given(gateway).authenticated) == ("anna", True)
        (message,) = gateway.log.messages
        assert message.key == episode_key("anna", "e").encode()


async def test_a_page_of_a_known_origin_alone_may_post_from_a_browser() -> None:
    asked = {"access-control-request-method": "POST", "access-control-request-headers": "content-type"}
    async with bench(cors_origins=("https://shop.example",)) as gateway:
        for origin, status in (("https://shop.example", 200), ("https://evil.example", 400)):
            answer = await gateway.client.options("/v1/feedback", headers=asked | {"origin": origin})
            assert answer.status_code == status
        headers = {"origin": "https://shop.example"}
        answer = await gateway.client.post("/v1/feedback", json={"episode": "e", "rating": "up"}, headers=headers)
        assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (202, headers["origin"])
        other = await gateway.client.options("/v1/models", headers=asked | headers)
        assert other.status_code == 405
    async with bench() as gateway:
        answer = await gateway.client.options("/v1/feedback", headers=asked | {"origin": "https://shop.example"})
        assert answer.status_code == 405
        # A page may send this without asking first.
        answer = await gateway.client.post(
            "/v1/feedback", content=b'{"episode": "e", "rating": "up"}', headers={"content-type": "text/plain"}
        )
        assert answer.status_code == 415


async def test_feedback_is_on_the_topic_when_it_is_answered(kafka: KafkaSettings) -> None:
    async with bench() as gateway:
        assert gateway.gateway.feedback is not None
        publisher = Publisher(kafka, 10, 2**20, "feedback")
        gateway.gateway.feedback._log, gateway.gateway.feedback._topic = publisher, kafka.calls_topic
        bodies = [{"episode": f"e-{number}", "score": number / 10} for number in range(10)]
        answers = await asyncio.gather(*(gateway.client.post("/v1/feedback", json=body) for body in bodies))
        assert {answer.status_code for answer in answers} == {202}
        publisher.close()
    stored = [ANY_CALL_RECORD.validate_json(value) for value, _ in read_all(kafka, kafka.calls_topic)]
    assert {record.episode for record in stored if isinstance(record, Feedback)} == {f"e-{n}" for n in range(10)}
