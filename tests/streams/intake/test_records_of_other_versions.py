"""Records that earlier versions published are read; those of a newer one are refused or wait, and are not lost."""

import json
from pathlib import Path

import pytest

from ratchet_client.events import OutcomeEvent, StepEvent
from streams.branch_events import BranchRequest, BranchResult, RecoveryResult
from streams.errors import NewerRecordError
from streams.intake.decoding import decode_event, decode_result
from streams.kafka.records import Received
from streams.kafka.refusals import Unreadable, dead_letter_record
from streams.store.decoded import Decoded
from tests.builders.episodes import KAFKA, episode
from tests.builders.old_homes import DAYS, records_of


def received(topic: str, value: bytes) -> Received:
    return Received(topic, 0, 7, b"key", value)


def refused(decoded: Decoded) -> str:
    """The reason, once what was refused has become a dead-letter record with the bytes as they came."""
    assert isinstance(decoded.content, Unreadable)
    letter = dead_letter_record(decoded.received, decoded.content, KAFKA.dead_letters_topic)
    assert letter.value == decoded.received.value
    return decoded.content.error


@pytest.mark.parametrize("day", DAYS)
def test_what_an_earlier_version_published_is_read(day: str, tmp_path: Path) -> None:
    events, requests, results = [], [], []
    for topic, value in records_of(day, tmp_path):
        if topic == KAFKA.events_topic:
            events.append(decode_event(received(topic, value)).content)
        elif topic == KAFKA.branches_topic:
            requests.append(BranchRequest.model_validate_json(value))
        else:
            results.append(decode_result(received(topic, value)).content)
    steps = [event for event in events if isinstance(event, StepEvent)]
    assert [(step.episode_id, step.step) for step in steps] == [(f"e{n}", step) for n in range(3) for step in range(2)]
    assert {step.action.content for step in steps} == {"go 0", "go 1"}
    assert {step.observation[0].role for step in steps} == {"user"}
    outcomes = [event for event in events if isinstance(event, OutcomeEvent)]
    assert [outcome.success for outcome in outcomes] == [True, True, False]
    assert len(events) == len(steps) + len(outcomes)
    assert {step.action.content for request in requests for step in request.steps} == {"go 0", "go 1"}
    assert isinstance(results[0], BranchResult)
    assert {alternative.action.content for alternative in results[0].alternatives} >= {"jump"}
    assert all(isinstance(result, BranchResult | RecoveryResult) for result in results)


def test_an_event_of_a_newer_schema_is_refused_by_its_schema() -> None:
    fields = json.loads(episode("e0")[0].to_json()) | {"schema": 3}
    assert "schema" in refused(decode_event(received(KAFKA.events_topic, json.dumps(fields).encode())))


def test_a_field_that_a_newer_version_added_is_refused_though_the_schema_is_known() -> None:
    fields = json.loads(episode("e0")[0].to_json())
    fields["task"]["mood"] = "good"
    reason = refused(decode_event(received(KAFKA.events_topic, json.dumps(fields).encode())))
    assert reason == "step.task.(unknown): Extra inputs are not permitted"


def test_a_branch_result_of_a_newer_schema_waits_for_the_upgrade(tmp_path: Path) -> None:
    value = next(value for topic, value in records_of(DAYS[-1], tmp_path) if topic == KAFKA.transitions_topic)
    fields = json.loads(value) | {"schema": 3}
    with pytest.raises(NewerRecordError, match=r"/0/7 has schema 3"):
        decode_result(received(KAFKA.transitions_topic, json.dumps(fields).encode()))
