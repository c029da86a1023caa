"""Tools as the OpenAI API defines them, read into what environments, mutations and the conformance suite need of them.

An environment keeps its tools as `Tool`s and offers their `definition`s; what another has defined is read by `of`.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, Self, TypeAlias
from urllib.parse import unquote

from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError, best_match
from pydantic import JsonValue
from referencing import Registry
from referencing.exceptions import Unresolvable
from referencing.jsonschema import DRAFT202012

from ratchet_client.messages import ToolDefinition, Tools
from streams.errors import ToolCallError

_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")

Schema: TypeAlias = Mapping[str, Any]

_ALTERNATIVES = ("anyOf", "oneOf", "allOf")

# Of a schema that refers to itself without end: no metaschema forbids it.
_UNCHECKABLE = (RecursionError, Unresolvable)

_WITHOUT_ARGUMENTS: Mapping[str, JsonValue] = {"type": "object", "properties": {}}


@dataclass(frozen=True)
class Tool:
    """A function that may be called; `parameters` is the JSON Schema of its arguments. Nothing of it is ever changed.

    >>> cd = Tool("cd", "Go into a folder.", {"type": "object", "required": ["folder"]})
    >>> cd.fault({})
    "'folder' is a required property"
    >>> Tool.of(cd.definition) == cd
    True
    """

    name: str
    description: str
    parameters: Mapping[str, JsonValue]

    @classmethod
    def of(cls, definition: ToolDefinition) -> Self:
        """Raises `ToolCallError` for a definition that models and servers could make nothing of, with the reason."""
        match definition:
            case {"type": "function", "function": {"name": str(name), **rest}}:
                description, parameters = rest.get("description") or "", rest.get("parameters") or _WITHOUT_ARGUMENTS
            case _:
                raise ToolCallError('It is not of the form {"type": "function", "function": {"name": …}}.')
        if not _NAME.fullmatch(name):
            raise ToolCallError(f"The name {name!r} is not of 1 to 64 letters, digits, underscores and hyphens.")
        if not isinstance(description, str):
            raise ToolCallError(f"The description of {name} is not a text.")
        if not isinstance(parameters, dict) or parameters.get("type") != "object":
            raise ToolCallError(f'The parameters of {name} are not a JSON Schema of the type "object".')
        try:
            Draft202012Validator.check_schema(parameters)
            _resolve_references(parameters)
        except SchemaError as error:
            at = f" at {'.'.join(map(str, error.path))}" if error.path else ""
            raise ToolCallError(
                f"The parameters of {name} are not valid JSON Schema{at}: {error.message[:300]}."
            ) from error
        except Unresolvable as error:
            raise ToolCallError(f"The parameters of {name} refer to what is not in their schema: {error}.") from error
        return cls(name, description, parameters)

    @cached_property
    def definition(self) -> ToolDefinition:
        return {
            "type": "function",
            "function": {"name": self.name, "description": self.description, "parameters": dict(self.parameters)},
        }

    def fault(self, arguments: Mapping[str, JsonValue]) -> str:
        """The reason for which the tool's schema refuses `arguments`; empty where it takes them."""
        try:
            error = best_match(self._validator.iter_errors(arguments))
        except _UNCHECKABLE as failure:
            return f"they cannot be checked ({failure})"
        if error is None:
            return ""
        at = f"at {'.'.join(map(str, error.path))}: " if error.path else ""
        return f"{at}{error.message}"

    def takes(self, arguments: Mapping[str, JsonValue]) -> bool:
        """Return whether the tool's schema allows `arguments`."""
        try:
            return self._validator.is_valid(arguments)
        except _UNCHECKABLE:
            return False

    @cached_property
    def plain(self) -> Schema:
        """The parameters without references, and with the first of several alternatives: enough to make values by.

        What is left out the schema itself still checks.

        >>> day = {"anyOf": [{"type": "null"}, {"type": ["string", "null"]}]}
        >>> Tool("f", "", {"properties": {"on": {"$ref": "#/$defs/Day"}}, "$defs": {"Day": day}}).plain
        {'properties': {'on': {'type': 'string'}}}
        """
        return _in_plain_words(self.parameters, self.parameters, ())

    @cached_property
    def _validator(self) -> Draft202012Validator:
        return Draft202012Validator(self.parameters)


def usable(tools: Tools) -> dict[str, Tool]:
    """The tools by their names, without those whose definitions are at fault."""
    read = (_read(json.dumps(definition)) for definition in tools)
    return {tool.name: tool for tool in read if tool is not None}


# To check a schema takes longer than all that is made of it.
@lru_cache(4096)
def _read(definition: str) -> Tool | None:
    try:
        return Tool.of(json.loads(definition))
    except ToolCallError:
        return None


def _resolve_references(parameters: Mapping[str, JsonValue]) -> None:
    """Raises `Unresolvable` for a reference that leads out of the schema or to nothing in it."""
    resolver = Registry().with_resource("", DRAFT202012.create_resource(parameters)).resolver("")
    for reference in _references(parameters):
        resolver.lookup(reference)


def _references(schema: object) -> Iterator[str]:
    match schema:
        case dict():
            if isinstance(reference := schema.get("$ref"), str):
                yield reference
            for inner in schema.values():
                yield from _references(inner)
        case list():
            for inner in schema:
                yield from _references(inner)


def _in_plain_words(schema: object, root: Schema, within: tuple[str, ...]) -> dict[str, Any]:
    if not isinstance(schema, Mapping):
        return {}  # true, which allows everything; or false, and then the tool's schema refuses what is made of it
    plain = {name: part for name, part in schema.items() if name not in ("$defs", "$ref", *_ALTERNATIVES)}
    reference = schema.get("$ref")
    if isinstance(reference, str) and reference not in within:
        target = _target(reference, root)
        return _in_plain_words({**target, **plain}, root, (*within, reference))
    choices = [choice for several in _ALTERNATIVES for choice in schema.get(several, ())]
    if choices:
        return _in_plain_words({**plain, **_first(choices)}, root, within)
    if isinstance(kinds := plain.get("type"), list):
        plain["type"] = next((kind for kind in kinds if kind != "null"), "null")
    if "const" in plain:
        plain["enum"] = [plain["const"]]
    if isinstance(properties := plain.get("properties"), Mapping):
        plain["properties"] = {name: _in_plain_words(inner, root, within) for name, inner in properties.items()}
    if "items" in plain:
        plain["items"] = _in_plain_words(plain["items"], root, within)
    return plain


def _target(reference: str, root: Schema) -> Schema:
    target: Any = root
    for step in reference.removeprefix("#").removeprefix("/").split("/") if reference != "#" else ():
        step = unquote(step).replace("~1", "/").replace("~0", "~")
        target = target.get(step) if isinstance(target, Mapping) else None
    return target if isinstance(target, Mapping) else {}


def _first(choices: Sequence[object]) -> Schema:
    """The first that is more than null."""
    described = [choice for choice in choices if isinstance(choice, Mapping)]
    return next((choice for choice in described if choice.get("type") != "null"), {})
