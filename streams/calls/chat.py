"""One model call in the form that all are brought to, however it was captured. Pure."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

from ratchet_client.messages import Message, Messages, Tools


@dataclass(frozen=True, slots=True)
class Chat:
    """One model call: the messages that the model saw, its reply, the name of the model that replied, and its tools.

    `tools` is None where definitions of tools were hidden or cut off.
    """

    messages: Messages
    action: Message
    model: str | None
    tools: Tools | None = ()

    @classmethod
    def of(
        cls, seen: Messages | None, reply: Message | None, model: str | None, tools: Tools | None = ()
    ) -> Self | None:
        """The call with an id for each call of a tool; None when there are no messages or no reply."""
        if not seen or reply is None:
            return None
        *messages, action = with_call_ids((*seen, reply))
        return cls(tuple(messages), action, model, tools)


@dataclass(slots=True)
class _Open:
    """A call of the newest reply, and the place of its id."""

    place: tuple[int, int]
    name: str
    identity: str
    answered: bool = False


def with_call_ids(messages: Iterable[Message]) -> Messages:
    """The messages of a chat, in which every call of a tool has an id and every answer that of its call.

    A call without an id takes that of its answer, else `call_N` if it is the chat's call number N. An answer without
    one belongs to the first call of the reply before it that is not answered yet, of the tool that its `name` says;
    the name, which few dialects tell, is left out.
    """
    chat = list(messages)
    given: dict[tuple[int, int], str] = {}  # the ids of calls that had none
    answers: dict[int, str] = {}
    newest: list[_Open] = []
    count = 0
    for number, message in enumerate(chat):
        if message.calls:
            newest = []
            for index, call in enumerate(message.calls):
                name = call.function.name if call.function is not None else ""
                newest.append(_Open((number, index), name, call.id or f"call_{count}"))
                if not call.id:
                    given[number, index] = f"call_{count}"
                count += 1
        elif message.role == "tool":
            identity = message.tool_call_id
            found = _answered(newest, identity, getattr(message, "name", None), given)
            if found is not None:
                found.answered = True
                if identity is not None and found.place in given:
                    given[found.place] = found.identity = identity
                answers[number] = found.identity
    return tuple(
        _with_ids(message, number, given, answers.get(number, message.tool_call_id))
        for number, message in enumerate(chat)
    )


def _answered(
    calls: list[_Open], identity: str | None, name: str | None, given: dict[tuple[int, int], str]
) -> _Open | None:
    if identity is not None and any(call.identity == identity for call in calls if call.place not in given):
        return next((call for call in calls if call.identity == identity and not call.answered), None)
    # An answer with an id belongs to a call that has none, one without to any.
    left = [call for call in calls if not call.answered and (identity is None or call.place in given)]
    return next((call for call in left if call.name == name), left[0] if left else None)


def _with_ids(message: Message, number: int, given: dict[tuple[int, int], str], tool_call_id: str | None) -> Message:
    if message.role == "tool":
        told = message.model_dump(exclude_none=True, exclude={"name"})
        return Message.model_validate(told | {"tool_call_id": tool_call_id})
    if not message.calls:
        return message
    calls = tuple(
        call.model_copy(update={"id": given[number, index]}) if (number, index) in given else call
        for index, call in enumerate(message.calls)
    )
    return message.model_copy(update={"tool_calls": calls})
