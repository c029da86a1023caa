"""What an operator may switch, add and except, and what goes to quarantine."""

import base64
import random

import pytest
from pydantic import ValidationError

from ratchet_client.errors import ConfigurationError
from ratchet_client.events import OutcomeEvent
from streams.redaction.redactor import Redactor, UnjudgeableError
from streams.redaction.settings import Kind, RedactionSettings, Rule
from tests.builders.episodes import episode

KEY = b"a key of the tests"


def redact(text: str, **changed: object) -> str:
    return Redactor(RedactionSettings.model_validate(changed), KEY).redact_text(text, "e1")[0]


def test_redaction_can_be_switched_off() -> None:
    event = episode("e", action="john@example.com")[0]
    assert Redactor(RedactionSettings(enabled=False), KEY).redact(event).event is event


def test_episodes_of_a_declared_simulator_are_not_redacted() -> None:
    event = episode("e", action="john@example.com")[0]
    played = Redactor(RedactionSettings(simulators=frozenset({"textworld_express"})), KEY)
    assert played.redact(event).event is event
    assert Redactor(RedactionSettings(), KEY).redact(event).counts == {"email": 1}


def test_only_the_kinds_that_are_on_are_replaced() -> None:
    text = redact("john@example.com 4111111111111111", kinds=["card"])
    assert text.startswith("john@example.com <CARD_")
    assert redact("john@example.com 4111111111111111", kinds=[]) == "john@example.com 4111111111111111"


def test_a_rule_replaces_its_match_or_its_first_group() -> None:
    rules = [{"name": "ticket", "pattern": r"TCK-\d+"}, {"name": "patient", "pattern": r"patient (\w+)"}]
    text = redact("TCK-77 of patient Zoe", rules=rules)
    assert text.startswith("<TICKET_")
    assert " of patient <PATIENT_" in text
    assert "Zoe" not in text


def test_exceptions_are_left_alone() -> None:
    text = "support@example.com john@example.com john@test.org"
    kept = redact(text, keep=["support@example.com"], keep_patterns=[r".*@test\.org"])
    assert kept.startswith("support@example.com <EMAIL_")
    assert kept.endswith("john@test.org")


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"rules": [{"name": "x", "pattern": "("}]}, "is not a regular expression"),
        ({"rules": [{"name": "x", "pattern": "a*"}]}, "matches the empty text"),
        ({"keep_patterns": ["["]}, "is not a regular expression"),
        ({"rules": [{"name": "email", "pattern": "x"}]}, "names of their own: email"),
        ({"rules": [{"name": "x", "pattern": "x"}, {"name": "x", "pattern": "y"}]}, "names of their own: x"),
        ({"rules": [{"name": "Not a name", "pattern": "x"}]}, "rules.0.name"),
        ({"kinds": ["emails"]}, "kinds"),
        ({"emails": True}, "Extra inputs are not permitted"),
    ],
)
def test_a_wrong_setting_is_refused_at_once(changed: object, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        RedactionSettings.model_validate(changed)


def test_a_key_is_needed() -> None:
    with pytest.raises(ConfigurationError, match="key"):
        Redactor(RedactionSettings(), b"")


def test_presidio_is_an_extra_that_is_named_when_it_is_missing() -> None:
    try:
        import presidio_analyzer  # type: ignore[import-not-found,unused-ignore]  # noqa: F401  # an extra
    except ImportError:
        with pytest.raises(ConfigurationError, match=r"ratchetd\[presidio\]"):
            Redactor(RedactionSettings(presidio=True), KEY)
    else:
        pytest.skip("Presidio is installed: uninstall presidio-analyzer to run this test")


@pytest.mark.parametrize(
    "text",
    [
        base64.b64encode(random.Random(3000).randbytes(3000)).decode(),
        "an image: data:image/png;base64," + base64.b64encode(random.Random(3000).randbytes(3000)).decode(),
        base64.encodebytes(random.Random(3000).randbytes(3000)).decode(),
        random.Random(3000).randbytes(3000).hex(),
        "half a pair \ud800",
        "x" * (256 * 1024 + 1),
    ],
)
def test_text_that_cannot_be_judged_is_refused(text: str) -> None:
    with pytest.raises(UnjudgeableError) as error:
        redact(text)
    assert text[:20] not in str(error.value)


def test_text_on_which_a_rule_times_out_is_refused() -> None:
    with pytest.raises(UnjudgeableError, match="slow"):
        redact("a" * 40 + "!", rules=[{"name": "slow", "pattern": r"(a+)+b|(?:a|aa)+$"}], rule_timeout_s=0.05)


def test_evidence_that_is_too_deep_is_refused() -> None:
    evidence: dict[str, object] = {}
    for _ in range(100):
        evidence = {"inner": evidence}
    event = OutcomeEvent(episode_id="e", verifier="v", success=True, score=1.0, evidence=evidence)
    with pytest.raises(UnjudgeableError, match="deep"):
        Redactor(RedactionSettings(), KEY).redact(event)


def test_two_keys_with_one_redacted_form_are_refused() -> None:
    evidence = {"john@example.com": 1, "JOHN@example.com": 2}
    event = OutcomeEvent(episode_id="e", verifier="v", success=True, score=1.0, evidence=evidence)
    with pytest.raises(UnjudgeableError, match="keys"):
        Redactor(RedactionSettings(), KEY).redact(event)


@pytest.mark.parametrize("text", ["=" * 3000, "a" * 3000, "apple\npear\nplum\n" * 300, "words and words " * 500])
def test_separator_lines_lists_and_prose_can_be_judged(text: str) -> None:
    assert redact(text) == text


def test_rules_and_kinds_are_plain_data() -> None:
    settings = RedactionSettings(rules=(Rule(name="x", pattern="x+"),), kinds=frozenset({Kind.EMAIL}))
    assert RedactionSettings.model_validate_json(settings.model_dump_json()) == settings
