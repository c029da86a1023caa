"""How often redaction is wrong on two collections of lines: exactly as docs/privacy.md says."""

import json
import random
import time
from pathlib import Path

import pytest

from streams.redaction.finder import Finder
from streams.redaction.redactor import Redactor
from streams.redaction.settings import RedactionSettings
from tests.corpora.lines import harmless, is_redacted, secret

REDACTOR = Redactor(RedactionSettings(), b"a key of the tests")
DOCUMENT = (Path(__file__).parents[3] / "docs" / "privacy.md").read_text()
WRONG = ["password == password1", "phone model 1100-3310-6600"]
MISSED = [
    "| password | hunter2 |",
    r"4111\n1111\n1111\n1111",
    "4111:1111:1111:1111",
    "4111,1111,1111,1111",
    "4111|1111|1111|1111",
    "1234 4111 1111 1111 1111",
    "-p hunter2",
    "password, hunter2",
    "8.8.8.8",
    "1.2.3.4",
    "203_0_113_7",
    "x203.0.113.77",
    "eth00:1a:2b:3c:4d:5e",
    "415_555_2671",
    "phone: 415_555_2671",
    "+1_415_555_2671",
    "D E89 3704 0044 0532 0130 00",
]

# Each repeated to two lengths: where a pattern goes back over what it has read, four times the text takes sixteen times
# as long.
HOSTILE = [
    "4111 ",
    "4111-1111-1111-",
    "4111 1111 1111 1111 ",
    "4111111111111111 ",
    "415-555-2671 ",
    "123-45-6789 ",
    "1 ",
    "1234 5678 ",
    "1.2.3.",
    "1.2.3.4 ",
    "203.0.113.77 from ",
    "00:1a:",
    "a:",
    "::1 ",
    "mac mac",
    "DE89 ",
    "ssn 123 45 ",
    "password=",
    'password="',
    "password='a\"",
    "password:\n",
    "password: |\n",
    "password ",
    "passwordpassword",
    "secret_secret-",
    "key api_key api ",
    "password, value",
    "<password>",
    "{{ password: '{{ ",
    "${password:",
    "set PASSWORD ",
    "mysql -u root ",
    "docker login ",
    "a:5432:b:c:",
    "login a password ",
    "--password ",
    '--password",',
    '--password","a1',
    '"value":"',
    '"value":"abc","name":"',
    "a1-",
    "sk-abc-1",
    "sha512-",
    "sha512-/",
    "+1 -2 ",
    "+1 234 567 ",
    "126.0.6478.127 ",
    "1.2.3.4.5",
    "signature=HMAC-SHA",
    "password - ",
    "password || ",
    "password     or",
    "getget.env",
    "get('password', '",
    "$6$a$",
    "$argon2id$",
    "configure set ",
    "echo 'a:b' | chpasswd",
    "redis-cli -",
    "user identified by ",
    'identified by "a',
    "zip ",
    "username a secret ",
    "•4",
    "\uff14",
    "\\u0034",
]


def test_harmless_lines_are_changed_as_seldom_as_documented() -> None:
    lines = harmless()
    wrong = [line.text for line in lines if is_redacted(line, REDACTOR)]
    assert wrong == WRONG
    assert f"**{len(wrong)} of {len(lines):,} harmless lines**" in DOCUMENT


def test_secrets_are_missed_as_seldom_as_documented() -> None:
    lines = secret()
    missed = [line.text for line in lines if not is_redacted(line, REDACTOR)]
    assert missed == MISSED
    assert f"**{len(missed)} of {len(lines)} secrets**" in DOCUMENT


def test_every_miss_is_named_in_the_document() -> None:
    assert [text for text in MISSED if f"`{text}`" not in DOCUMENT.replace("\\|", "|")] == []


def test_the_rates_in_json_within_json_are_the_same() -> None:
    def wrapped(text: str) -> tuple[str, bool]:
        redacted, counts = REDACTOR.redact_text(json.dumps({"arguments": json.dumps({"text": text})}), "e")
        return json.loads(json.loads(redacted)["arguments"])["text"], bool(counts)

    assert [line.text for line in harmless() if wrapped(line.text)[1]] == WRONG
    left = [line.text for line in secret() if any(part in wrapped(line.text)[0] for part in line.secrets)]
    assert left == MISSED


def test_lines_of_the_collections_are_redacted_at_once() -> None:
    once = [REDACTOR.redact_text(line.text, "e")[0] for line in secret()]
    assert [REDACTOR.redact_text(text, "e")[0] for text in once] == once


def test_the_collections_are_large_and_of_many_kinds() -> None:
    written = [line for line in harmless() if not line.kind.startswith("drawn")]
    assert len({line.text for line in written}) >= 550
    assert len({line.kind for line in written}) >= 20
    assert len({line.text for line in secret()}) >= 400
    assert all(part in line.text for line in secret() for part in line.secrets)


@pytest.mark.parametrize("highest", [10, 30, 100, 1000])
def test_rows_of_small_numbers_are_no_cards_and_no_phones(highest: int) -> None:
    draw = random.Random(highest)
    rows = [" ".join(str(draw.randrange(highest)) for _ in range(20)) for _ in range(400)]
    assert [row for row in rows if Finder(RedactionSettings()).find(row)] == []


@pytest.mark.parametrize("separator", [" ", "  ", "\t", ",", ", ", " | ", ";", "-", ".", "/", "_"])
def test_rows_of_numbers_of_four_digits_are_no_cards(separator: str) -> None:
    draw = random.Random(7)
    rows = [separator.join(str(draw.randrange(1000, 10_000)) for _ in range(9)) for _ in range(200)]
    counts = [REDACTOR.redact_text(row, "e")[1]["card"] for row in rows]
    assert sum(counts) == 0


@pytest.mark.parametrize("piece", HOSTILE)
def test_time_grows_with_the_length_of_a_hostile_text(piece: str) -> None:
    def seconds(length: int) -> float:
        text = (piece * (length // len(piece) + 1))[:length]
        began = time.process_time()
        Finder(RedactionSettings(max_opaque=1 << 20)).find(text)
        return time.process_time() - began

    seconds(1_000)
    short = min(seconds(6_000) for _ in range(3))
    long = min(seconds(24_000) for _ in range(2))
    assert long < 8 * short + 0.02
