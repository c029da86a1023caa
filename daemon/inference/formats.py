"""Demands of a request on the form of its reply: which calls it makes, which JSON it answers with.

`requests.py` reads it from a request's fields, and `answers.py` has a grammar made of it.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import TypeAdapter
from pydantic_core import PydanticCustomError

from daemon.inference.grammar import AnswerRule, Calls, json_schema
from ratchet_client.messages import ToolDefinition

# A function without parameters takes none, in OpenAI's API.
_NO_PARAMETERS = {"properties": {}, "additionalProperties": False}
_FLAG: TypeAdapter[bool | None] = TypeAdapter(bool | None)


@dataclass(frozen=True, slots=True)
class ToolChoice:
    """The demand for calls; `names` are the functions that may be called, None for all that are offered.

    A request that names a function has it called `once`.
    """

    mode: Literal["none", "auto", "required"]
    names: tuple[str, ...] | None = None
    once: bool = False


def read_tool_choice(value: Any) -> ToolChoice | None:
    """A `tool_choice` of the API. Raises `PydanticCustomError` for one that is not served."""
    if value is None or isinstance(value, ToolChoice):
        return value
    if value in ("none", "auto", "required"):
        return ToolChoice(value)
    if isinstance(value, dict):
        name = _named(value)
        if name is not None:
            return ToolChoice("required", (name,), once=True)
        allowed = value.get("allowed_tools")
        if (
            value.get("type") == "allowed_tools"
            and isinstance(allowed, dict)
            and isinstance(allowed.get("tools"), list)
        ):
            names = [_named(each) for each in allowed["tools"]]
            if allowed.get("mode") in ("auto", "required") and names and None not in names:
                return ToolChoice(allowed["mode"], tuple(name for name in names if name is not None))
    raise PydanticCustomError(
        "not_served", 'not served; send "none", "auto", "required", a function, or allowed_tools that are functions'
    )


def read_response_format(value: Any) -> AnswerRule | None:
    """A `response_format` of the API, None for text. Raises `PydanticCustomError` for one that is not served."""
    if value is None or isinstance(value, AnswerRule):
        return value
    kind = value.get("type") if isinstance(value, dict) else None
    if kind == "text" and len(value) == 1:
        return None
    if kind == "json_object" and len(value) == 1:
        return json_schema("response_format", {"type": "object"}, strict=True)
    described = value.get("json_schema") if kind == "json_schema" else None
    if isinstance(described, dict) and described.keys() <= {"name", "description", "schema", "strict"}:
        schema = described.get("schema")
        return json_schema(
            "response_format",
            {"type": "object"} if schema is None else schema,
            strict=bool(_FLAG.validate_python(described.get("strict"))),
        )
    raise PydanticCustomError(
        "not_served",
        "not served; send {told}",
        {"told": '{"type": "text"}, {"type": "json_object"} or {"type": "json_schema", "json_schema": {"schema": …}}'},
    )


def read_structured(value: Any) -> AnswerRule | None:
    """vLLM's `structured_outputs`. Raises `PydanticCustomError` for a kind that is not served."""
    if value is None or isinstance(value, AnswerRule):
        return value
    given = {key: each for key, each in value.items() if each not in (None, False)} if isinstance(value, dict) else {}
    kind, body = next(iter(given.items())) if len(given) == 1 else ("", None)
    if kind == "json_object":
        return json_schema("structured_outputs", {"type": "object"}, strict=True)
    if kind == "json" and isinstance(body, dict | str):
        try:
            return json_schema("structured_outputs", json.loads(body) if isinstance(body, str) else body, strict=True)
        except ValueError as error:
            raise PydanticCustomError("invalid", "json: not a JSON schema; send an object") from error
    if kind == "choice" and isinstance(body, list) and body and all(isinstance(each, str) and each for each in body):
        return AnswerRule("structured_outputs", " | ".join(json.dumps(each) for each in body))
    raise PydanticCustomError("not_served", "not served; send one of json, json_object and choice, and nothing else")


def demanded_calls(tools: Sequence[ToolDefinition], choice: ToolChoice | None, *, parallel: bool) -> Calls | None:
    """The calls that a request demands or allows, None for one that offers no tools."""
    if not tools:
        return None
    chosen = choice or ToolChoice("auto")
    functions, strict = {}, chosen.names is not None
    for index, tool in enumerate(tools):
        function = function_of(tool)
        if chosen.names is None or function["name"] in chosen.names:
            given = function.get("parameters")
            schema = {"type": "object", **(_NO_PARAMETERS if given is None else given)}
            strict |= bool(function.get("strict"))
            functions[function["name"]] = json_schema(f"tools.{index}", schema, strict=bool(function.get("strict")))
    return Calls(functions, chosen.mode, parallel=parallel and not chosen.once, strict=strict)


def function_of(tool: ToolDefinition) -> dict[str, Any]:
    """The description of the function that a tool is."""
    function = tool["function"]
    assert isinstance(function, dict)  # of requests that were read
    return function


def _named(value: Any) -> str | None:
    function = value.get("function") if isinstance(value, dict) and value.get("type") == "function" else None
    name = function.get("name") if isinstance(function, dict) else None
    return name if isinstance(name, str) else None
