"""The tasks of the Berkeley Function Calling Leaderboard's multi-turn categories, read from the wheel `bfcl-eval`.

The four categories are variants of the same 200 scenarios. A task and all its variants lie in one fold.
"""

import ast
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from bfcl_eval.constants.default_prompts import DEFAULT_USER_PROMPT_FOR_ADDITIONAL_FUNCTION_FC
from bfcl_eval.constants.executable_backend_config import MULTI_TURN_FUNC_DOC_FILE_MAPPING
from pydantic import JsonValue

from streams.environments.tool_calls import Call
from streams.environments.tool_definitions import Tool
from streams.errors import SandboxError

CATEGORIES = ("multi_turn_base", "multi_turn_miss_func", "multi_turn_miss_param", "multi_turn_long_context")
_FOLDS = ("train", "dev", "test")

# No two of them have a tool of the same name.
APIS = (
    "GorillaFileSystem",
    "MathAPI",
    "MessageAPI",
    "TicketAPI",
    "TradingBot",
    "TravelAPI",
    "TwitterAPI",
    "VehicleControlAPI",
)

# Changing the key or the shares makes every earlier figure incomparable.
_FOLD_KEY = b"ratchet-bfcl"
_TRAIN, _DEV = 0.6, 0.2

_TYPES = {"dict": "object", "float": "number", "tuple": "array"}


@dataclass(frozen=True, slots=True)
class Turn:
    """A user's message, the tools that come with it, and the calls that answer it (none: it cannot be answered)."""

    user: str
    new_tools: tuple[Tool, ...]
    gold: tuple[Call, ...]


@dataclass(frozen=True, slots=True)
class Scenario:
    """One task. `config` is the first state of each API in `apis`; `entry_id` is the task's name in the wheel."""

    entry_id: str
    apis: tuple[str, ...]
    config: Mapping[str, JsonValue]
    turns: tuple[Turn, ...]

    @property
    def long_context(self) -> bool:
        return "long_context" in self.entry_id

    def tools(self, turn: int) -> tuple[Tool, ...]:
        """The tools that may be called in turn number `turn`."""
        return tuple(tool for begun in self.turns[: turn + 1] for tool in begun.new_tools)

    def allows_its_gold(self) -> bool:
        """Return whether its own answer can be given by calling the tools as they are documented: a few cannot."""
        return all(
            any(tool.name == call.name and tool.takes(call.arguments) for tool in self.tools(number))
            for number, turn in enumerate(self.turns)
            for call in turn.gold
        )


@cache
def scenarios(category: str) -> tuple[Scenario, ...]:
    """The 200 tasks of a category; a task's place is its number."""
    answers = _lines(f"possible_answer/BFCL_v4_{category}.json")
    entries = _lines(f"BFCL_v4_{category}.json")
    return tuple(_scenario(entry, answer["ground_truth"]) for entry, answer in zip(entries, answers, strict=True))


@cache
def fold_of(number: int) -> str:
    """The fold of scenario `number` in all categories: a keyed hash of how it begins, as some begin alike."""
    opening = scenarios("multi_turn_base")[number].turns[0].user
    digest = hashlib.blake2b(opening.encode(), key=_FOLD_KEY, digest_size=8).digest()
    position = int.from_bytes(digest) / 2**64
    return _FOLDS[(position >= _TRAIN) + (position >= _TRAIN + _DEV)]


@cache
def documented(api: str) -> Mapping[str, Tool]:
    """The tools of an API by their names."""
    tools = {}
    for entry in _lines(f"multi_turn_func_doc/{MULTI_TURN_FUNC_DOC_FILE_MAPPING[api]}"):
        # What comes before says at each tool the same of its whole API.
        text = entry["description"].partition("Tool description: ")[2]
        tools[entry["name"]] = Tool(entry["name"], " ".join(text.split()), _schema(entry["parameters"]))
    return tools


def _schema(dialect: dict[str, Any]) -> dict[str, JsonValue]:
    """The JSON Schema of what the wheel describes in a dialect of its own, with some enumerations only in prose."""
    text = " ".join(dialect.get("description", "").split())
    described, _, members = text.partition("[Enum]: ")
    schema: dict[str, JsonValue] = {"type": _TYPES.get(dialect["type"], dialect["type"])}
    if described:
        schema["description"] = described.strip()
    if "default" in dialect:
        schema["default"] = dialect["default"]
    if "items" in dialect:
        schema["items"] = _schema(dialect["items"] | ({"description": f"[Enum]: {members}"} if members else {}))
    elif members:
        schema["enum"] = [member.strip(' "') for member in members.strip("[]").split(",")]
    if "properties" in dialect:
        schema["properties"] = {name: _schema(inner) for name, inner in dialect["properties"].items()}
        schema["required"] = dialect.get("required", [])
        schema["additionalProperties"] = False
    return schema


def _scenario(entry: dict[str, Any], answers: list[list[str]]) -> Scenario:
    tools = {name: tool for api in entry["involved_classes"] for name, tool in documented(api).items()}
    late = {int(turn): [tools.pop(name) for name in names] for turn, names in entry.get("missed_function", {}).items()}
    parameters = {name: list(_properties(tool)) for name, tool in tools.items()}
    parameters |= {tool.name: list(_properties(tool)) for held_back in late.values() for tool in held_back}
    return Scenario(
        entry_id=entry["id"],
        apis=tuple(entry["involved_classes"]),
        config=entry["initial_config"],
        turns=tuple(
            Turn(
                user=messages[0]["content"] if messages else DEFAULT_USER_PROMPT_FOR_ADDITIONAL_FUNCTION_FC,
                new_tools=tuple(late.get(number, ()) if number else tools.values()),
                gold=tuple(_call(source, parameters) for source in gold),
            )
            for number, (messages, gold) in enumerate(zip(entry["question"], answers, strict=True))
        ),
    )


def _call(source: str, parameters: Mapping[str, list[str]]) -> Call:
    """The call that a line of Python such as `cd('docs')` makes."""
    match ast.parse(source, mode="eval").body:
        case ast.Call(func=ast.Name(id=name), args=positional, keywords=named):
            values = dict(zip(parameters[name], positional, strict=False))
            values |= {keyword.arg: keyword.value for keyword in named if keyword.arg}
            # Through JSON, because an agent's own calls come that way and have no tuples.
            return Call(name, json.loads(json.dumps({key: ast.literal_eval(value) for key, value in values.items()})))
    raise SandboxError(f"an answer of bfcl-eval is not a call: {source!r}. Install the version that is locked.")


def _properties(tool: Tool) -> dict[str, dict[str, Any]]:
    parameters: Mapping[str, Any] = tool.parameters
    return dict(parameters["properties"])


def _lines(name: str) -> list[dict[str, Any]]:
    text = files("bfcl_eval").joinpath("data", name).read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]
