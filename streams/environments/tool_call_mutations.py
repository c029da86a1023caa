"""Alternatives to tool calls that the tools' own schemas allow. Branching tries them where the policy offers too few.

What a policy might well have done instead: another value, another tool, a call too few, an answer too early.
"""

import random
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from pydantic import JsonValue

from ratchet_client.messages import Message, Tools, assistant
from streams.environments.tool_calls import Call, calling, calls_of, render
from streams.environments.tool_definitions import Schema, usable

_Kind = Callable[[], tuple[Call, ...]]

_TO_THE_USER = "Done."

# What was said last is the likeliest to be mixed up.
_REMEMBERED = 60

# For each alternative wanted. A try fails on what the schema forbids and on what was found before.
_TRIES = 20

_PLAIN: Mapping[str, tuple[type, ...]] = {"string": (str,), "integer": (int,), "number": (int, float)}

_NAMED = re.compile(r'"(\w+)":\s*(?:"([^"\n]{1,80})"|(-?\d{1,15}(?:\.\d{1,15})?)(?![\d.]))')
_STRINGS = (
    re.compile(r'"([^"\n]{1,80})"(?!\s*:)'),
    re.compile(r"(?<!\w)'([^'\n]{1,80})'(?!\w)"),
    re.compile(r"(?<=[a-z,] )([A-Z][\w-]*(?: [A-Z][\w-]*)*)"),
    re.compile(r"(?<!\S)([\w@#./-]*[\d_@#./-][\w@#./-]*\w)"),
)
_NUMBER = re.compile(r"(?<![\w.-])-?\d{1,15}(?:\.\d{1,15})?(?![\w-]|\.\d)")


def mutations(trusted: Message, tools: Tools, context: str, generator: random.Random, most: int) -> tuple[Message, ...]:
    """At most `most` actions other than `trusted`, no two of which do the same; fewer where it finds no more.

    Every call in them is of one of `tools` with arguments that its schema allows, and has an id of its own; tools whose
    definitions are at fault are left alone. `context` has all texts of the messages so far (`texts_of`), from which
    names and numbers come. Raises `ToolCallError` where a call of `trusted` is malformed.
    """
    calls = calls_of(trusted)
    known = usable(tools)
    schemas = {name: tool.plain for name, tool in known.items()}
    kinds = _kinds(calls, schemas, _Invention(_Said.in_text(context, schemas), generator))
    generator.shuffle(kinds)
    origin = f"mutation of {[call.id for call in trusted.calls]}"
    found: dict[tuple[str, ...], Message] = {}
    unchanged = _effect(calls, schemas)
    for attempt in range(_TRIES * most if kinds else 0):
        changed = kinds[attempt % len(kinds)]()
        effect = _effect(changed, schemas)
        if effect == unchanged or effect in found:
            continue
        if all(call.name in known and known[call.name].takes(call.arguments) for call in changed):
            found[effect] = calling(changed, origin) if changed else assistant(_TO_THE_USER)
        if len(found) == most:
            break
    return tuple(found.values())


def texts_of(messages: Iterable[Message]) -> str:
    """All texts of a chat, those of calls too, as the context of mutations."""
    return "\n".join(text for message in messages for text in message.texts())


def _effect(calls: Iterable[Call], schemas: Mapping[str, Schema]) -> tuple[str, ...]:
    """The canonical form of calls that do the same: an argument that says the default may be left out."""

    def telling(call: Call) -> dict[str, JsonValue]:
        known = schemas.get(call.name, {}).get("properties", {})
        return {
            name: value for name, value in call.arguments.items() if known.get(name, {}).get("default", ...) != value
        }

    return tuple(render([Call(call.name, telling(call))]) for call in calls)


@dataclass(frozen=True, slots=True)
class _Said:
    """The names and numbers in a text, newest first; `named` has what stood in it as `"name": value`."""

    strings: tuple[str, ...]
    numbers: tuple[int | float, ...]
    named: Mapping[str, tuple[JsonValue, ...]]

    @classmethod
    def in_text(cls, text: str, but: Iterable[str]) -> "_Said":
        matches = sorted((match.start(), match[1]) for pattern in _STRINGS for match in pattern.finditer(text))
        named: dict[str, tuple[JsonValue, ...]] = {}
        for match in reversed(list(_NAMED.finditer(text))):
            value = match[2] if match[3] is None else _number(match[3])
            named[match[1]] = (*named.get(match[1], ()), value)
        return cls(
            _newest((string for _, string in matches), but),
            tuple(map(_number, _newest(_NUMBER.findall(text)))),
            named,
        )


def _newest(found: Iterable[str], but: Iterable[str] = ()) -> tuple[str, ...]:
    unwanted = set(but)
    distinct = dict.fromkeys(reversed(list(found)))
    return tuple(text for text in distinct if text not in unwanted)[:_REMEMBERED]


def _number(text: str) -> int | float:
    return float(text) if "." in text else int(text)


def _shape(text: str) -> str:
    """The format of dates, file names or zip codes.

    >>> _shape("2024-11-12"), _shape("report.pdf")
    ('0000-00-00', 'a.a')
    """
    return re.sub(r"\d", "0", re.sub(r"[^\W\d_]+", "a", text))


@dataclass(frozen=True, slots=True)
class _Invention:
    """Makes up values that a JSON Schema describes, out of what was said. They are proposals: the schema has a say."""

    said: _Said
    generator: random.Random

    def value(self, schema: Schema, name: str) -> JsonValue:
        """A value for the argument `name`."""
        draw = self.generator
        if members := schema.get("enum"):
            member: JsonValue = draw.choice(members)
            return member
        kind = schema.get("type", "object" if "properties" in schema else "string")
        if named := [value for value in self.said.named.get(name, ()) if _is(value, kind)]:
            return draw.choice(named)
        match kind:
            case "boolean":
                return draw.random() < 0.5
            case "integer" | "number":
                return draw.choice([number for number in self.said.numbers if _is(number, kind)] or [0, 1, 10])
            case "array":
                return [self.value(schema.get("items", {}), name)]
            case "object":
                properties = schema.get("properties", {})
                wanted = [inner for inner in properties if inner in schema.get("required", ())] or list(properties)[:1]
                return {inner: self.value(properties[inner], inner) for inner in wanted}
            case "string":
                return draw.choice(self.said.strings or ("",))
        return None

    def other(self, value: JsonValue, schema: Schema, name: str) -> JsonValue:
        """Another value for the argument `name`, much like `value`."""
        draw = self.generator
        if "enum" in schema:
            return self.value(schema, name)
        match value:
            case bool():
                return not value
            case int() | float():
                kind = schema.get("type", "number")
                near = [value - 10, value - 1, value + 1, value + 10]
                said = [number for number in self.said.numbers if _is(number, kind) and number != value]
                return draw.choice(near + said)
            case str():
                alike = [text for text in self.said.strings if _shape(text) == _shape(value) and text != value]
                return draw.choice(alike) if alike and draw.random() < 0.7 else self.value(schema, name)
            case list():
                return self._other_items(value, schema.get("items", {}), name)
            case dict():
                return self.other_argument(value, schema)
        return self.value(schema, name)

    def other_argument(self, arguments: Mapping[str, JsonValue], schema: Schema) -> dict[str, JsonValue]:
        """The arguments with one of them changed, or as they are where there is none."""
        changed = dict(arguments)
        known = [name for name in changed if name in schema.get("properties", {})]
        if known:
            name = self.generator.choice(known)
            changed[name] = self.other(changed[name], schema["properties"][name], name)
        return changed

    def optional_argument(self, arguments: Mapping[str, JsonValue], schema: Schema) -> dict[str, JsonValue]:
        """The arguments with an optional one left out or added, or as they are where there is none."""
        changed = dict(arguments)
        optional = [name for name in schema.get("properties", {}) if name not in schema.get("required", ())]
        if optional:
            name = self.generator.choice(optional)
            if name in changed:
                del changed[name]
            else:
                changed[name] = self.value(schema["properties"][name], name)
        return changed

    def _other_items(self, items: list[JsonValue], schema: Schema, name: str) -> list[JsonValue]:
        place = self.generator.randrange(len(items) + 1)
        if place == len(items):
            return [*items, self.value(schema, name)]
        if self.generator.random() < 0.5:
            return [*items[:place], *items[place + 1 :]]
        return [*items[:place], self.other(items[place], schema, name), *items[place + 1 :]]


def _kinds(calls: tuple[Call, ...], schemas: Mapping[str, Schema], invention: _Invention) -> list[_Kind]:
    """The ways in which `calls` may be changed. Each gives a change at every try, not always a valid or a new one."""
    draw = invention.generator

    def at_one_place(change: Callable[[Call], Call]) -> tuple[Call, ...]:
        place = draw.randrange(len(calls))
        return (*calls[:place], change(calls[place]), *calls[place + 1 :])

    def other_value(call: Call) -> Call:
        return Call(call.name, invention.other_argument(call.arguments, schemas.get(call.name, {})))

    def other_optional(call: Call) -> Call:
        return Call(call.name, invention.optional_argument(call.arguments, schemas.get(call.name, {})))

    def any_call() -> Call:
        name = draw.choice(sorted(schemas))
        arguments = invention.value(schemas[name], name)
        return Call(name, arguments if isinstance(arguments, dict) else {})

    def swapped() -> tuple[Call, ...]:
        first, second = sorted(draw.sample(range(len(calls)), 2))
        return (*calls[:first], calls[second], *calls[first + 1 : second], calls[first], *calls[second + 1 :])

    def one_fewer() -> tuple[Call, ...]:
        place = draw.randrange(len(calls))
        return (*calls[:place], *calls[place + 1 :])

    kinds: list[_Kind] = []
    if calls:
        kinds += [lambda: at_one_place(other_value), lambda: at_one_place(other_optional), lambda: ()]
    if schemas:
        kinds.append(lambda: at_one_place(lambda _: any_call()) if calls else (any_call(),))
    if len(calls) > 1:
        kinds += [swapped, one_fewer]
    return kinds


def _is(value: JsonValue, kind: str) -> bool:
    return not isinstance(value, bool) and isinstance(value, _PLAIN.get(kind, ()))
