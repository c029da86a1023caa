"""Planted secrets and personal data must be gone from what is stored; what only looks like them must stay."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ratchet_client.events import Actor, Message, OutcomeEvent, RetractionEvent, StepEvent, Task
from streams.redaction.redactor import Redactor
from streams.redaction.settings import Kind, RedactionSettings
from tests.planted import PLANTED

KEY = b"a key of the tests"
REDACTOR = Redactor(RedactionSettings(), KEY)

# JSON inside a string, as tool arguments are; the second writes every sign as an escape, the third is JSON in JSON.
WRAPPED = [
    lambda text: json.dumps({"arguments": {"text": text}}),
    lambda text: '{"q": "' + "".join(f"\\u{ord(sign):04x}" if ord(sign) < 0x10000 else sign for sign in text) + '"}',
    lambda text: json.dumps({"arguments": json.dumps({"text": text})}),
]

LEFT_ALONE = [
    "[score 0.50] You open the fridge. In it are 3 apples and 12 plates.",
    "You see a key, a token and a secret door. The password is written nowhere.",
    "card 4111111111111112 fails Luhn",
    "DE89370400440532013001 fails modulo 97",
    "python 3.11.4, v1.2.3.4, package==2.13.0.1, Chrome/120.0.0.0",
    "at 2026-11-21 10:00:00 and 2026-11-21T10:00:00.123456Z, 21.11.2026, 11/21/2026",
    "it costs $1,299.00, or 1299.00, or €4111111.11",
    "order 4155552671 at 1763719200 and 1763719200000",
    "0.4532015112830366 and 3.14159265358979 and 1e-10",
    "id 550e8400-e29b-41d4-a716-446655440000",
    "sha256 e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "std::vector<int> a::b and x::y",
    "127.0.0.1 and ::1 and 0.0.0.0",
    "password = getpass.getpass() and token = os.environ['TOKEN'] and secret=None",
    "max_tokens: 512, tokens=300, tokenizer: cl100k_base",
    "an @ alone, user@host, @mention, a@b",
    "a basic understanding of the bearer of news",
    "C:\\new\\table and 100%25 and &amp; &lt;b&gt;",
    "https://example.com/a/b/c?page=2#top",
    "streams/environments/textworld_express.py:120: in test_something_1234567",
]

# docs/privacy.md names these: a change that finds one of them takes it off both lists.
MISSED = [
    "John Smith of 12 Main Street, born on 3 May 1980",
    "john at example dot com",
    "4155552671 is the one to ring",
    "030 901820",
    "passport C01X00T47",
    "the password is swordfish",
    "the code is 4711",
    "four one one one, one one one one, one one one one, one one one one",
    "6a6f686e406578616d706c652e636f6d",
    "john\n@example.com",
    "ip-203-0-113-77",
]


def step(text: str, episode: str = "e1", environment: str = "shop") -> StepEvent:
    return StepEvent(
        episode_id=episode,
        step=0,
        agent="assistant",
        principal="tenant/john@example.com",
        task=Task(environment=environment, task_id="mail john@example.com"),
        messages=(Message(role="system", content="Be kind."), Message(role="user", content=text)),
        action=Message(role="assistant", content=text),
        observation=text,
        actor=Actor(kind="expert"),
    )


def outcome(evidence: dict[str, Any]) -> OutcomeEvent:
    return OutcomeEvent(episode_id="e1", verifier="human", success=True, score=1.0, evidence=evidence)


@pytest.mark.parametrize(("value", "around", "kind"), PLANTED)
def test_a_planted_value_is_gone_from_every_text_of_a_step(value: str, around: str, kind: str) -> None:
    event = step(around.format(value))
    redacted = REDACTOR.redact(event)
    assert isinstance(redacted.event, StepEvent)
    messages = (redacted.event.messages[1], redacted.event.action, *redacted.event.observation)
    texts = [message.text for message in messages]
    assert all(value not in text for text in texts)
    assert texts[0] == texts[1] == texts[2]
    assert redacted.counts[kind] >= 3
    assert redacted.event.messages[0] is event.messages[0]


@pytest.mark.parametrize("wrap", WRAPPED)
@pytest.mark.parametrize(("value", "around", "kind"), PLANTED)
def test_a_planted_value_is_gone_from_json_in_a_string(value: str, around: str, kind: str, wrap: Any) -> None:
    text, counts = REDACTOR.redact_text(wrap(around.format(value)), "e1")
    said = json.loads(text)
    inner = json.loads(said["arguments"]) if isinstance(said.get("arguments"), str) else said
    assert value not in json.dumps(inner, ensure_ascii=False)
    assert counts[kind] == 1


@pytest.mark.parametrize(("value", "around", "kind"), PLANTED)
def test_a_planted_value_is_gone_from_evidence_at_any_depth(value: str, around: str, kind: str) -> None:
    text = around.format(value)
    evidence = {"calls": [{"result": {"text": text}}, [text]], text: 1}
    redacted = REDACTOR.redact(outcome(evidence))
    assert json.dumps(value)[1:-1] not in redacted.event.to_json().decode()
    assert value not in repr(redacted.event)
    assert redacted.counts[kind] >= 3


@pytest.mark.parametrize("text", LEFT_ALONE)
def test_text_that_only_resembles_a_secret_is_left_alone(text: str) -> None:
    event = step(text)
    redacted = REDACTOR.redact(event)
    assert redacted.event is event
    assert not redacted.counts


@settings(max_examples=300, deadline=None)
@given(
    planted=st.sampled_from(PLANTED),
    before=st.sampled_from(LEFT_ALONE),
    behind=st.sampled_from(LEFT_ALONE),
    joint=st.sampled_from(["\n", ". ", ", ", "; ", " | ", '", "']),
)
def test_a_planted_value_is_gone_whatever_stands_around_it(
    planted: tuple[str, str, str], before: str, behind: str, joint: str
) -> None:
    value, around, kind = planted
    text, counts = REDACTOR.redact_text(joint.join((before, around.format(value), behind)), "e1")
    assert value not in text
    assert counts[kind] >= 1


@pytest.mark.parametrize("text", MISSED)
def test_known_misses_are_still_missed(text: str) -> None:
    assert REDACTOR.redact_text(text, "e1") == (text, {})


def test_the_json_key_of_a_value_tells_its_kind() -> None:
    evidence = {"password": "abc", "pin": 1234, "card": 4111111111111111, "phone": "4155552671", "max_tokens": 512}
    evidence |= {"score": 0.4532015112830366, "ok": True, "nothing": None, "ssn": "123 45 6789"}
    event = REDACTOR.redact(outcome(evidence)).event
    assert isinstance(event, OutcomeEvent)
    kinds = {key: str(value).rpartition("_")[0] for key, value in event.evidence.items()}
    assert kinds["password"] == kinds["pin"] == "<PASSWORD"
    assert (kinds["card"], kinds["phone"], kinds["ssn"]) == ("<CARD", "<PHONE", "<SSN")
    assert {key: event.evidence[key] for key in ("max_tokens", "score", "ok", "nothing")} == {
        "max_tokens": 512,
        "score": 0.4532015112830366,
        "ok": True,
        "nothing": None,
    }


def test_identifiers_stay_so_that_a_retraction_finds_its_principal() -> None:
    event = REDACTOR.redact(step("john@example.com")).event
    assert isinstance(event, StepEvent)
    assert (event.principal, event.task.task_id) == ("tenant/john@example.com", "mail john@example.com")


def test_the_reason_of_a_retraction_is_redacted() -> None:
    event = RetractionEvent(principal="p", reason="john@example.com asked")
    redacted = REDACTOR.redact(event).event
    assert isinstance(redacted, RetractionEvent)
    assert redacted.reason.startswith("<EMAIL_")
    clean = RetractionEvent(principal="p", reason="asked")
    assert REDACTOR.redact(clean).event is clean


def test_one_value_has_one_placeholder_in_an_episode_however_it_is_written() -> None:
    text = "john@example.com JOHN@example.com john%40example.com 4111 1111 1111 1111 4111111111111111"
    words = REDACTOR.redact_text(text, "e1")[0].split()
    assert len(set(words[:3])) == 1
    assert len(set(words[3:])) == 1


def test_placeholders_are_stable_across_restarts_and_unlinkable_across_episodes() -> None:
    text = "john@example.com"
    here = REDACTOR.redact_text(text, "e1")[0]
    assert Redactor(RedactionSettings(), KEY).redact_text(text, "e1")[0] == here
    assert REDACTOR.redact_text(text, "e2")[0] != here
    assert Redactor(RedactionSettings(), b"another key").redact_text(text, "e1")[0] != here


def test_a_redacted_state_stays_an_append_only_conversation() -> None:
    first, second = step("ring +1 415-555-2671"), step("ring +1 415-555-2671 at john@example.com")
    one, two = REDACTOR.redact(first).event, REDACTOR.redact(second).event
    assert isinstance(one, StepEvent)
    assert isinstance(two, StepEvent)
    assert two.observation[0].text.startswith(one.observation[0].text)


def test_a_value_that_imitates_a_placeholder_is_redacted() -> None:
    text, _ = REDACTOR.redact_text("<DE89370400440532013000_3f9a1c>", "e1")
    assert "DE8937" not in text


_PIECES = st.lists(
    st.one_of(
        st.sampled_from([around.format(value) for value, around, _ in PLANTED]),
        st.sampled_from(LEFT_ALONE),
        st.text(max_size=20),
        st.from_regex(r"[0-9 ().+@:/=<>_A-Za-z-]{0,40}", fullmatch=True),
    ),
    max_size=6,
)


@settings(max_examples=300, deadline=None)
@given(pieces=_PIECES, joint=st.sampled_from([" ", "", "\n", ", ", '"', "\\n"]))
def test_redacting_twice_changes_nothing_more(pieces: list[str], joint: str) -> None:
    once, _ = REDACTOR.redact_text(joint.join(pieces), "e1")
    twice, counts = REDACTOR.redact_text(once, "e1")
    assert twice == once
    assert not counts


@settings(max_examples=300, deadline=None)
@given(st.text(st.characters(categories=["L", "Zs"], exclude_characters="@"), max_size=400))
def test_plain_words_are_left_unchanged(text: str) -> None:
    assert REDACTOR.redact_text(text, "e1") == (text, {})


def test_every_kind_of_secret_is_among_the_planted_values() -> None:
    assert {kind for _, _, kind in PLANTED} == {str(kind) for kind in Kind}
    assert len(PLANTED) >= 40
