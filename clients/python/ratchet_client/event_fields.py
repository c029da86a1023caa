"""The types of the fields of events: names and numbers within the store's limits, and actions and observations as texts
or as messages.
"""

import re
from collections.abc import Callable
from typing import Annotated, Any, TypeAlias

from pydantic import AfterValidator, Field, GetCoreSchemaHandler, GetPydanticSchema
from pydantic_core import core_schema

from ratchet_client.messages import Message, Messages, Tools, as_definition

_STATE = re.compile("sha256:[0-9a-f]{64}")

# The store keeps numbers in 32 and 64 bits; a larger one must be a dead-letter record and not the end of the writer.
Count: TypeAlias = Annotated[int, Field(ge=0, lt=2**31)]
# Names are logged and joined by; a longer one is refused.
Name: TypeAlias = Annotated[str, Field(max_length=512)]
Identity: TypeAlias = Annotated[str, Field(min_length=1, max_length=512)]
Seed: TypeAlias = Annotated[int, Field(ge=-(2**63), lt=2**63)]
# The name of a state by its content.
StateReference: TypeAlias = Annotated[str, Field(pattern=rf"^{_STATE.pattern}$")]


def state_reference(text: str | None) -> str | None:
    """The text as a reference to a state; None where it is none."""
    return text if text is not None and _STATE.fullmatch(text) else None


def is_none(value: object) -> bool:
    return value is None


def is_empty(value: tuple[object, ...]) -> bool:
    return not value


def _action(said: Message | str) -> Message:
    action = Message(role="assistant", content=said) if isinstance(said, str) else said
    if action.role != "assistant":
        raise ValueError("an action is an assistant's message: its role is assistant")
    return action


def _observed(said: Messages | str) -> Messages:
    messages = (Message(role="user", content=said),) if isinstance(said, str) else said
    for message in messages:
        if message.role == "assistant":
            raise ValueError("an observation is what came back: an assistant's message is an action of another step")
    return messages


def _definitions(tools: Tools) -> Tools:
    return tuple(map(as_definition, tools))


def _or_text(as_messages: Callable[[Any], Any]) -> GetPydanticSchema:
    """In schema 1 an action and an observation were texts. JSON is read as either in one go, without Python between."""

    def schema(source: Any, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        choices: list[Any] = [(handler(source), "list"), (core_schema.str_schema(), "str")]
        either = core_schema.union_schema(choices, mode="left_to_right")
        return core_schema.no_info_after_validator_function(as_messages, either)

    return GetPydanticSchema(schema)


# An action is an assistant's message, an observation the messages that came back: results of tools, the user's words.
Action: TypeAlias = Annotated[Message, _or_text(_action)]
Observed: TypeAlias = Annotated[Messages, _or_text(_observed)]
# In another API's form they are read as the OpenAI API has them.
OfferedTools: TypeAlias = Annotated[Tools, AfterValidator(_definitions), Field(exclude_if=is_empty)]
