"""The words for a wrong setting: which key of which file it is, and what it should be."""

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any

from pydantic import BaseModel

_TYPES: Mapping[str, str] = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "string": "a text in quotes",
    "tuple": "a list in brackets",
    "list": "a list in brackets",
    "dict": "a table",
    "frozen_set": "a list in brackets",
    "path": "a path in quotes",
    "model": "a table of settings",
}


def told(settings: type[BaseModel], error: Mapping[str, Any]) -> str:
    """Return what is wrong in plain words, of one error of pydantic's list; the key is not part of it."""
    kind, place = str(error["type"]), tuple(error["loc"])
    if kind == "missing":
        return "it must be set"
    if kind == "extra_forbidden":
        *section, name = map(str, place)
        near = get_close_matches(name, _names(settings, section), 1)
        within = f" in [{'.'.join(section)}]" if section else ""
        return f"unknown setting {name}{within}" + (f"; did you mean {near[0]}?" if near else "")
    expected = _TYPES.get(kind.removesuffix("_type").removesuffix("_parsing"))
    if expected is not None and kind.endswith(("_type", "_parsing")):
        return f"it must be {expected}"  # without the value, which may be a secret
    return str(error["msg"])


def _names(model: type[BaseModel], section: Sequence[str]) -> list[str]:
    """The settings of a section, as files name them; none where it is not a fixed section."""
    for name in section:
        found = model.model_fields.get(name)
        if found is None or not (isinstance(found.annotation, type) and issubclass(found.annotation, BaseModel)):
            return []
        model = found.annotation
    return list(model.model_fields)
