"""The tools that a model was offered, from wherever instrumentations put them, in the OpenAI API's form."""

from collections.abc import Iterator, Mapping, Sequence

from pydantic import JsonValue

from ratchet_client.messages import TOOL_PARAMETERS, ToolDefinition, Tools, as_definition
from streams.calls.json_values import mapping
from streams.otlp.dialects.rendering import numbered
from streams.otlp.dialects.texts import decoded
from streams.otlp.records import Attributes

# Attributes that begin with one of these hold definitions of tools.
ATTRIBUTES = ("gen_ai.tool.definitions", "llm.tools.", "llm.request.functions.", "ai.prompt.tools")
# Attributes with a list of definitions, or its JSON; Vercel's SDK has a JSON text for each.
_LISTS = ("gen_ai.tool.definitions", "ai.prompt.tools")
_SCHEMA = "tool.json_schema"
_MORE = ("strict",)
_DECLARATIONS = ("function_declarations", "functionDeclarations")


def offered_tools(attributes: Mapping[str, JsonValue], *, whole: bool = True) -> Tools | None:
    """The tools that attributes tell of; None where some were hidden or cut off.

    `whole` unless attributes were dropped: then a number that is missing was one.
    """
    told = dict(attributes)
    for name in _LISTS:
        if (value := told.get(name)) is not None:
            return _made_strict(_definitions(decoded(value)), _requested(told))
    if (schemas := _numbered(told, "llm.tools", whole)) != []:
        return None if schemas is None else _definitions([item.get(_SCHEMA) or _unprefixed(item) for item in schemas])
    if (functions := _numbered(told, "llm.request.functions", whole)) != []:
        return None if functions is None else _definitions(functions)
    if requested := _requested(told):
        return _definitions(requested)
    invocation = mapping(decoded(told.get("llm.invocation_parameters"))).get("tools")
    return _definitions(invocation) if isinstance(invocation, list) else ()


def _requested(attributes: Attributes) -> list[JsonValue]:
    """The tools of a request as pydantic-ai has them, the one that gives the result included."""
    parameters = mapping(decoded(attributes.get("model_request_parameters")))
    listed = (parameters.get(name) for name in ("function_tools", "output_tools"))
    return [item for found in listed if isinstance(found, list) for item in found]


def _made_strict(tools: Tools | None, requested: Sequence[JsonValue]) -> Tools | None:
    """The tools with what only the request says of them: whether the model is held to their schema."""
    told = {name: item.get("strict") for item in map(mapping, requested) if isinstance(name := item.get("name"), str)}
    return tools and tuple(_with_strict(tool, told) for tool in tools)


def _with_strict(tool: ToolDefinition, strict: Mapping[str, JsonValue]) -> ToolDefinition:
    function = mapping(tool.get("function"))
    name = function.get("name")
    found = strict.get(name) if isinstance(name, str) else None
    return tool | {"function": {**function, "strict": found}} if isinstance(found, bool) else tool


def _numbered(attributes: Attributes, prefix: str, whole: bool) -> Sequence[Attributes] | None:
    return numbered(attributes, prefix, holes=whole)


def _unprefixed(item: Attributes) -> JsonValue:
    return {key.removeprefix("tool."): value for key, value in item.items()}


def _definitions(value: JsonValue | Sequence[JsonValue]) -> Tools | None:
    if not isinstance(value, list):
        return None
    found: list[ToolDefinition] = []
    for item in value:
        definition = decoded(item)
        if not isinstance(definition, dict) or not definition:
            return None
        found += _each(definition)
    return tuple(found)


def _each(value: dict[str, JsonValue]) -> Iterator[ToolDefinition]:
    """One definition, or the several that Gemini puts into one."""
    declared = next((found for key in _DECLARATIONS if isinstance(found := value.get(key), list)), None)
    if declared is not None:
        for item in declared:
            yield _function(mapping(item))
    elif isinstance(function := value.get("function"), dict):
        yield value | {"function": {key: item for key, item in function.items() if item is not None}}
    elif isinstance(value.get("toolSpec"), dict):
        yield _function(mapping(value["toolSpec"]))
    elif as_definition(value) is not value:
        yield _function(value)
    else:
        yield value


def _function(value: Mapping[str, JsonValue]) -> ToolDefinition:
    function: dict[str, JsonValue] = {"name": value.get("name")}
    if value.get("description"):
        function["description"] = value["description"]
    schema = next((decoded(found) for key in TOOL_PARAMETERS if (found := value.get(key)) is not None), None)
    # Converse has the schema within an object.
    if isinstance(schema, dict) and list(schema) == ["json"]:
        schema = schema["json"]
    if schema is not None:
        function["parameters"] = schema
    function |= {key: value[key] for key in _MORE if value.get(key) is not None}
    return {"type": "function", "function": function}
