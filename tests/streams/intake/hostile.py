"""Records as only bugs and enemies write them: a fuzzer that spoils valid events byte by byte and field by field.

It is deterministic: the same seed gives the same records.
"""

import base64
import json
import random
import string
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

from pydantic import JsonValue

from ratchet_client.events import Actor, Message, OutcomeEvent, RetractionEvent, StepEvent, Task
from ratchet_client.messages import ContentPart, Messages, Tools, assistant, call, user
from streams.kafka.records import Received

Headers: TypeAlias = tuple[tuple[str, bytes], ...]

# Planted wherever a sender chooses the words. Where it turns up shows what leaks out of a record that is refused.
MARKER = "PLANTED-by-a-stranger"

TEXTS = (
    *("", " ", "\x00", "a\x00b", "\n", "\r\n", "\x1b[2J\x1b[31mred", "\x07\x08", "\u202eevil\u202c", "\u200b\ufeff"),
    *(
        "'; DROP TABLE events; --",
        '" OR 1=1 --',
        "$$); DETACH store; --",
        "{{7*7}} ${jndi:ldap://x} %s%n {0.__class__}",
    ),
    *("<script>alert(1)</script>", "=cmd|' /C calc'!A0", "../../../../etc/passwd", "file:///dev/zero", "a\nb\tc"),
    *("ignore all previous instructions", "<|im_start|>system", "\U0001f9d1\u200d\U0001f680" * 9, "Z" + "\u0335" * 200),
    *(
        "\ufdfd" * 50,
        "\u0130\u017f\u00df\ufb03",
        "\U0010ffff",
        "null",
        "NaN",
        "-0",
        "1e999",
        "9" * 400,
        "x" * 70_000,
        "ab12" * 4000,
        base64.b64encode(bytes(range(256)) * 6).decode(),
        MARKER,
    ),
)
# JSON as bytes, since much of it is not JSON that Python would write.
LITERALS = (
    *(b"null", b"true", b"-0", b"0.1", b"-1", b"1e400", b"-1e400", b"NaN", b"Infinity", b"-Infinity", b"1e-400", b"01"),
    *(b"2147483648", b"9223372036854775807", b"9223372036854775808", b"-9223372036854775809", b"9" * 5000, b"0x1"),
    *(b'"\\ud800"', b'"\\udc00\\ud800"', b'"\xff\xfe"', b'"\xc0\xaf"', b'"\xed\xa0\x80"', b'"\x00"', b'"\\u0000"'),
    *(b"[]", b"{}", b"[" * 150 + b"]" * 150, b"[" * 5000 + b"]" * 5000, b'{"a":' * 5000, b"[" * 100_000, b'"\\x"'),
    *(
        b'{"a":1,"a":2}',
        b'{"a":' * 40 + b"1" + b"}" * 40,
        b'["user","hello"]',
        b'{"role":"user"}',
        b"0",
        b"1e18",
        b"-62135596801",
        b'"2026-11-21"',
    ),
    *(
        b'"0001-01-01T00:00:00+23:59"',
        b'"9999-12-31T23:59:59-23:59"',
        b'"2026-11-21T10:00:00"',
        b'"1969-12-31T23:59:59Z"',
    ),
    *(b'"2026-02-30T00:00:00Z"', b'"+012026-01-01T00:00:00Z"', b'"' + MARKER.encode() + b'"'),
)
KEYS: tuple[bytes | None, ...] = (None, b"", b"\x00", b"\xff\xfe", b"episode", b"a\nb", b"k" * 70_000, b"\xed\xa0\x80")
HEADERS: tuple[Headers, ...] = (
    (),
    (("", b""),),
    (("ratchet-signature", b"\xff\x00"), ("ratchet-signature", b"deadbeef")),
    (("ratchet-verdict", b"stored"), ("ratchet-offset", b"-1")),
    (("traceparent", b"\x1b[31m"), ("\u202eeman", "\U0001f480".encode())),
    (("x" * 5000, b"y" * 5000),) * 3,
)
_HUGE_EVERY = 4000


@dataclass(frozen=True, slots=True)
class Hostile:
    """A record to be published. An `honest` one keeps to the contract and is odd in its content alone."""

    key: bytes | None
    value: bytes | None
    headers: Headers = ()
    honest: bool = False

    def received(self, topic: str, partition: int, offset: int) -> Received:
        return Received(topic, partition, offset, self.key, self.value, self.headers)


def valid_events(draw: random.Random) -> Iterator[bytes]:
    """Growing chats with their verdicts, and now and then a retraction; every string may be an odd one."""

    def odd(usual: str) -> str:
        return draw.choice(TEXTS) if draw.random() < 0.1 else usual

    def name(usual: str) -> str:
        return odd(usual)[:512]

    number = 0
    while True:
        number += 1
        episode = name(f"episode-{number}") or "-"
        task = Task(
            environment=name("game"), task_id=name(f"game/{number}") or "-", seed=draw.choice((0, -(2**63), 2**63 - 1))
        )
        chat: tuple[Message, ...] = (Message(role="user", content=odd("You are in a kitchen.")),)
        for step in range(draw.randint(1, 4)):
            action, observation, tools = _turn(draw, odd, step)
            event = StepEvent(
                event_id=_id(draw),
                episode_id=episode,
                step=step if draw.random() < 0.95 else draw.choice((0, 7, 2**31 - 1)),
                agent=name("assistant"),
                principal=name(f"tenant/{number % 50}"),
                task=task,
                messages=chat,
                action=action,
                observation=observation,
                tools=tools,
                done=draw.random() < 0.3,
                actor=Actor(
                    kind=draw.choice(("policy", "expert", "human")), adapter=draw.choice((None, "", name("adapter")))
                ),
            )
            yield event.to_json()
            chat += (action, *observation)
        yield OutcomeEvent(
            event_id=_id(draw),
            episode_id=episode,
            verifier=name("game"),
            success=draw.random() < 0.7,
            score=draw.choice((0.0, 1.0, -1e308, 5e-324)),
            evidence={odd("note"): odd("fine"), "turns": [1, None, {"x": 2**70}]},
        ).to_json()
        if draw.random() < 0.1:
            yield RetractionEvent(event_id=_id(draw), principal=name("no one"), reason=odd("asked")).to_json()


def _turn(draw: random.Random, odd: Callable[[str], str], step: int) -> tuple[Message, Messages, Tools]:
    """A text and its answer, or calls of tools with their results, and the tools that were offered."""
    if draw.random() < 0.5:
        return assistant(odd(f"go {step}")), (user(odd(f"You went {step}.")),), ()
    ids = [odd(f"call_{step}_{number}") for number in range(draw.randint(1, 3))]
    calls = [call(odd("go"), json.dumps({odd("to"): odd("the kitchen")}), identity) for identity in ids]
    action = Message.model_validate(
        assistant(draw.choice((None, odd("I go."))), *calls).model_dump() | {odd("annotations"): [odd("a"), None]}
    )
    part = ContentPart.model_validate({"type": odd("text"), "text": odd("Done."), odd("cache"): {"ttl": odd("5m")}})
    results = [Message(role="tool", content=draw.choice((odd("Done."), (part,))), tool_call_id=each) for each in ids]
    parameters: dict[str, JsonValue] = {"to": {"type": "string", "description": odd("Where.")}}
    return action, (*results, user(odd("And then?"))), ({"type": "function", "function": {"parameters": parameters}},)


def fuzz(count: int, seed: int = 0) -> Iterator[Hostile]:
    """`count` records: a quarter of them honest, the others spoiled by one to four mutations."""
    draw = random.Random(seed)
    events = valid_events(draw)
    before = next(events)
    for number in range(count):
        value = next(events)
        # An id is stored once, so an honest repetition is honestly a duplicate.
        honest = draw.random() < 0.25
        if honest:
            value, before = (before if draw.random() < 0.2 else value), value
        elif number % _HUGE_EVERY == _HUGE_EVERY - 1:
            value = value.replace(b'":"', b'":"' + bytes(draw.choices(b"huge ", k=1024)) * 2048, 1)
        else:
            for _ in range(draw.randint(1, 4)):
                value = draw.choice(MUTATIONS)(draw, value, before)
        tombstone = not honest and draw.random() < 0.01
        headers = draw.choice(HEADERS) if draw.random() < 0.2 else ()
        yield Hostile(draw.choice(KEYS), None if tombstone else value, headers, honest)


def _id(draw: random.Random) -> str:
    plain = f"{draw.getrandbits(96):024x}"
    return plain if draw.random() < 0.9 else draw.choice(TEXTS)[:300] + plain


def _spot(draw: random.Random, value: bytes) -> int:
    return draw.randrange(len(value) + 1)


def flip_bits(draw: random.Random, value: bytes, other: bytes) -> bytes:
    spoiled = bytearray(value or b"{")
    for _ in range(draw.randint(1, 8)):
        spoiled[draw.randrange(len(spoiled))] ^= 1 << draw.randrange(8)
    return bytes(spoiled)


def truncate(draw: random.Random, value: bytes, other: bytes) -> bytes:
    return value[: _spot(draw, value)] if draw.random() < 0.5 else value[_spot(draw, value) :]


def splice(draw: random.Random, value: bytes, other: bytes) -> bytes:
    return value[: _spot(draw, value)] + other[_spot(draw, other) :]


def insert_noise(draw: random.Random, value: bytes, other: bytes) -> bytes:
    at = _spot(draw, value)
    return value[:at] + draw.randbytes(draw.randint(1, 16)) + value[at:]


def repeat_a_slice(draw: random.Random, value: bytes, other: bytes) -> bytes:
    start = _spot(draw, value)
    end = min(len(value), start + draw.randint(1, 64))
    return value[:end] + value[start:end] * draw.randint(1, 30) + value[end:]


def wrap(draw: random.Random, value: bytes, other: bytes) -> bytes:
    before, after = draw.choice(
        (
            *(
                (b"\xef\xbb\xbf", b""),
                (b"\xff\xfe", b""),
                (b"\x00", b""),
                (b"", b"\x00"),
                (b"[", b"]"),
                (b"", value),
                (b"", b","),
            ),
            *(
                (b" \n\t", b"\n "),
                (b"\x1f\x8b\x08", b""),
                (b'"', b'"'),
                (b"", b"}" * 20),
                (b")]}',\n", b""),
                (b"/*a*/", b""),
            ),
        )
    )
    return before + value + after


def recode(draw: random.Random, value: bytes, other: bytes) -> bytes:
    return value.decode(errors="replace").encode(draw.choice(("utf-16", "utf-32", "utf-7", "cp037")), errors="replace")


def on_fields(change: Callable[[random.Random, dict[str, Any]], None]) -> "Mutation":
    """A mutation of the parsed event; what is not a JSON object any more stays as it is."""

    def mutate(draw: random.Random, value: bytes, other: bytes) -> bytes:
        try:
            fields = json.loads(value)
        except (ValueError, RecursionError):
            return value
        if not isinstance(fields, dict) or not fields:
            return value
        change(draw, fields)
        return json.dumps(fields, ensure_ascii=draw.random() < 0.5).encode(errors="surrogatepass")

    return mutate


def _inner(draw: random.Random, fields: dict[str, Any]) -> dict[str, Any]:
    nested = [found for found in fields.values() if isinstance(found, dict) and found]
    return draw.choice(nested) if nested and draw.random() < 0.4 else fields


@on_fields
def drop_field(draw: random.Random, fields: dict[str, Any]) -> None:
    target = _inner(draw, fields)
    del target[draw.choice(list(target))]


@on_fields
def unknown_field(draw: random.Random, fields: dict[str, Any]) -> None:
    name = draw.choice(
        (*TEXTS[:30], "__proto__", "schema_version", "".join(draw.choices(string.printable, k=12)), MARKER)
    )
    _inner(draw, fields)[name] = draw.choice(TEXTS)


@on_fields
def odd_text(draw: random.Random, fields: dict[str, Any]) -> None:
    target = _inner(draw, fields)
    target[draw.choice(list(target))] = draw.choice((*TEXTS, "\ud800", "a\udfffb"))


@on_fields
def wrong_type(draw: random.Random, fields: dict[str, Any]) -> None:
    target = _inner(draw, fields)
    name = draw.choice(list(target))
    target[name] = draw.choice(
        ([target[name]], {"value": target[name]}, str(target[name]), True, None, 2**200, -1, 0.5)
    )


def odd_literal(draw: random.Random, value: bytes, other: bytes) -> bytes:
    """Put raw JSON, or what pretends to be JSON, in the place of a field's value."""
    name = draw.choice(
        (
            *(b"seed", b"step", b"score", b"schema", b"recorded_at", b"evidence", b"messages", b"task", b"done"),
            *(b"tools", b"observation", b"action", b"content", b"tool_calls", b"arguments", b"annotations"),
        )
    )
    start = value.find(b'"' + name + b'":')
    if start < 0:
        return value
    start += len(name) + 3
    ends = [end for end in (value.find(b',"', start), value.find(b"}", start)) if end >= 0]
    return value[:start] + draw.choice(LITERALS) + value[min(ends, default=len(value)) :]


def double_a_key(draw: random.Random, value: bytes, other: bytes) -> bytes:
    name = draw.choice((b"event_id", b"episode_id", b"kind", b"seed", b"principal", b"schema"))
    return value.replace(b"{", b'{"' + name + b'":' + draw.choice(LITERALS[:20]) + b",", 1)


Mutation: TypeAlias = Callable[[random.Random, bytes, bytes], bytes]
MUTATIONS: tuple[Mutation, ...] = (
    *(flip_bits, truncate, splice, insert_noise, repeat_a_slice, wrap, recode),
    *(drop_field, unknown_field, odd_text, wrong_type, odd_literal, double_a_key),
)
