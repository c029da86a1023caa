"""Feedback becomes outcomes of the episode of its call, early, late, and before its call is there."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from ratchet_client.events import OutcomeEvent
from streams.assembly.server import build_status_app
from streams.assembly.settings import AssemblySettings
from streams.intake.admission import Admission, AdmissionSettings
from streams.intake.decoding import decode_event
from streams.kafka.records import Received
from tests.builders.captured import SYSTEM, Desk, call, conversation, episodes, feedback, outcomes, said, user

SETTLE, IDLE, DAY = 10.0, 120.0, 86_400.0
TURNS = [("One.", "and?"), ("Two.", "so?")]


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    desk = Desk(tmp_path)
    yield desk
    desk.close()


def test_feedback_on_a_call_judges_its_episode_and_makes_it_settle(desk: Desk) -> None:
    calls = conversation("hello", TURNS)
    word = feedback(calls[1], False, verifier="thumbs", evidence={"text": "no"}, given_ns=1_000_000_000)
    events = desk.take(*calls, word, wait=SETTLE)
    assert episodes(events) == {calls[0].receipt: ["One.", "Two."]}
    (outcome,) = [event for event in events if isinstance(event, OutcomeEvent)]
    assert outcome == OutcomeEvent(
        event_id=word.record_id,
        episode_id=calls[0].receipt,
        verifier="thumbs",
        success=False,
        score=0.0,
        evidence={"text": "no"},
        recorded_at=datetime(1970, 1, 1, 0, 0, 1, tzinfo=UTC),
    )


@pytest.mark.parametrize("days", [0.0, 3.0, 6.9])
def test_feedback_finds_its_episode_days_later_and_may_be_repeated(desk: Desk, days: float) -> None:
    calls = conversation("hello", TURNS, episode="e")
    desk.take(*calls, wait=600)
    desk.now += days * DAY
    desk.state.prune(desk.now)
    desk.restart()
    assert outcomes(desk.take(feedback(calls[0], True), wait=SETTLE)) == [("e", True)]
    word = feedback(calls[1], False)
    assert outcomes(desk.take(word, wait=SETTLE)) == [("e", False)]
    assert desk.take(word, wait=SETTLE) == []
    assert desk.tally.status.unusable_feedback == 0


def test_feedback_waits_for_its_call_over_a_restart(desk: Desk) -> None:
    calls = conversation("hello", TURNS)
    word = feedback(calls[1])
    assert desk.take(word, wait=3 * DAY) == []
    desk.restart()
    assert episodes(desk.take(calls[0])) == {}
    events = desk.take(calls[1], wait=SETTLE)
    assert episodes(events) == {calls[0].receipt: ["One.", "Two."]}
    assert outcomes(events) == [(calls[0].receipt, True)]


def test_feedback_whose_call_never_comes_is_counted_after_the_retention(desk: Desk) -> None:
    assert desk.take(feedback(call([SYSTEM, user("x")], "y"))) == []
    assert desk.state.prune(desk.now + 7 * DAY - 1) == 0
    assert desk.state.prune(desk.now + 7 * DAY + 1) == 1
    assert desk.state.prune(desk.now + 8 * DAY) == 0


def test_what_is_open_and_what_waits_is_counted(desk: Desk) -> None:
    never = call([SYSTEM, user("x")], "y")
    desk.take(call([SYSTEM, user("a")], "b"), feedback(never))
    desk.now += 30
    desk.take(*conversation("hello", TURNS))
    assert desk.state.unfinished(desk.now + 5) == (2, 35, 1)
    with TestClient(build_status_app(desk.tally, desk.state), base_url="http://127.0.0.1") as client:
        status = client.get("/status").json()
        assert (status["open"], status["waiting_feedback"]) == (2, 1)
        assert "ratchet_assembly_open 2.0" in client.get("/metrics").text
    desk.take(wait=DAY)
    assert desk.state.unfinished(desk.now) == (0, 0, 1)


def test_what_is_open_settles_by_its_own_idle_limit(desk: Desk) -> None:
    assert desk.state.settling(desk.now) == (0, 0)
    settings = AssemblySettings()
    desk.take(call([SYSTEM, user("a")], "b"))
    desk.now += 30
    desk.take(*conversation("hello", TURNS, episode="e"))
    assert desk.state.settling(desk.now + 5) == (settings.call_idle_s - 35, settings.episode_idle_s - 5)
    assert desk.state.settling(desk.now + DAY) == (0, 0), "overdue"
    with TestClient(build_status_app(desk.tally, desk.state), base_url="http://127.0.0.1") as client:
        status = client.get("/status").json()
        assert (status["next_settles_s"], status["all_settle_s"]) == (0, 0), "long ago, by this machine's clock"
        assert "ratchet_assembly_all_settle_seconds" in client.get("/metrics").text
    desk.take(wait=DAY)
    assert desk.state.settling(desk.now) == (0, 0)


def test_what_came_before_the_clock_was_set_back_settles_from_then_on(desk: Desk) -> None:
    settings = AssemblySettings()
    desk.now += DAY
    desk.take(call([SYSTEM, user("a")], "b"))
    desk.now -= DAY
    assert desk.due() == []
    assert desk.state.settling(desk.now) == (settings.call_idle_s, settings.call_idle_s)
    assert len(desk.take(wait=settings.call_idle_s)) == 1


def test_feedback_on_an_episode_by_its_id_judges_it_open_closed_or_known_to_others(desk: Desk) -> None:
    calls = conversation("hello", TURNS, episode="e", principal="ann")
    events = desk.take(*calls, feedback("e"), wait=SETTLE)
    assert (episodes(events), outcomes(events)) == ({"e": ["One.", "Two."]}, [("e", True)])
    assert outcomes(desk.take(feedback("e", False, principal="ann"), wait=SETTLE)) == [("e", False)]
    assert outcomes(desk.take(feedback("of-another-producer"), wait=SETTLE)) == [("of-another-producer", True)]


def test_feedback_that_comes_before_the_calls_of_its_episode_settles_with_them(desk: Desk) -> None:
    events = desk.take(feedback("e"), *conversation("hello", TURNS, episode="e"), wait=SETTLE)
    assert (episodes(events), outcomes(events)) == ({"e": ["One.", "Two."]}, [("e", True)])


def test_feedback_on_a_superseded_answer_is_on_that_one_alone(desk: Desk) -> None:
    opening = [SYSTEM, user("hello")]
    bad, good = call(opening, "A", episode="e"), call(opening, "B", episode="e")
    on = call([*opening, said("B"), user("thanks")], "C", episode="e")
    events = desk.take(bad, good, on, feedback(bad, False), feedback(on, True), wait=SETTLE)
    assert sorted(outcomes(events)) == [("e", True), (f"e/{bad.receipt}", False)]


def test_feedback_on_a_call_of_several_choices_is_on_the_one_gone_on_with_or_on_none(desk: Desk) -> None:
    opening = [SYSTEM, user("hello")]
    several = call(opening, "A", "B")
    on = call([*opening, said("B"), user("and?")], "C")
    events = desk.take(several, on, feedback(several), wait=SETTLE)
    (judged,) = [episode for episode, success in outcomes(events) if success]
    assert episodes(events)[judged] == ["B", "C"]
    assert outcomes(desk.take(feedback(several, False), wait=SETTLE)) == [(judged, False)]
    undecided = call([SYSTEM, user("other")], "A", "B")
    assert outcomes(desk.take(undecided, feedback(undecided), wait=SETTLE)) == []
    assert desk.tally.status.unusable_feedback == 1


def test_feedback_on_a_call_that_failed_is_counted(desk: Desk) -> None:
    failed = call([SYSTEM, user("x")], "y", status=500)
    assert desk.take(failed, feedback(failed), wait=IDLE) == []
    assert desk.tally.status.unusable_feedback == 1


def test_what_came_with_a_token_is_signed_and_nothing_else_is(desk: Desk) -> None:
    keys: Any = {"ann": "s3cret"}
    admission = AdmissionSettings(principals=keys)
    desk.keys = dict(admission.principals)
    calls = conversation("hello", TURNS, principal="ann", authenticated=True)
    desk.take(*calls, feedback(calls[0], principal="ann", authenticated=True), wait=SETTLE)
    assert len(desk.outgoing) == 3
    for message in desk.outgoing:
        received = Received("events", 0, 0, message.key, message.value, message.headers)
        event: Any = decode_event(received).content
        assert Admission(admission).unsigned(received, event) is None
    desk.outgoing.clear()
    claimed = conversation("other", TURNS, principal="ann")
    desk.take(*claimed, feedback(calls[0], principal="ann"), wait=IDLE)
    assert [message.headers for message in desk.outgoing] == [()] * 3


def test_by_an_episodes_id_a_token_reaches_its_own_principals_calls_alone(desk: Desk) -> None:
    calls = conversation("hello", TURNS, episode="e", principal="ann", authenticated=True)
    stranger = feedback("e", False, principal="bob", authenticated=True)
    assert outcomes(desk.take(*calls, stranger, wait=SETTLE)) == [("e", False)]
    assert episodes(desk.take(wait=600)) == {"e": ["One.", "Two."]}  # it did not make them settle
