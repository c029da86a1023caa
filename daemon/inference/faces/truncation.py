"""`truncation: auto` of the Responses API: items are dropped from the beginning of a conversation that is too long."""

from bisect import bisect_left

from daemon.inference.answers import prompt_length
from daemon.inference.engine import Engine
from daemon.inference.requests import ChatRequest
from streams.errors import RequestRefusedError

_INSTRUCTIONS = ("system", "developer")


def fitted(engine: Engine, chat: ChatRequest) -> ChatRequest:
    """The chat as it is if a reply fits behind it, else without its oldest messages: with as many as leave room.

    Instructions at its beginning stay, and a result of a tool goes with its call. Room is left for `max_tokens`, which
    are at most half of what the model holds. A chat that cannot be made to fit is left as it is.
    Raises `RequestRefusedError` where the template refuses the chat.
    """
    messages = chat.messages
    if prompt_length(engine, chat) < engine.max_length:
        return chat
    kept = next((at for at, message in enumerate(messages) if message.role not in _INSTRUCTIONS), len(messages))
    most = engine.max_length - min(chat.max_tokens or 1, engine.max_length // 2)

    def without(start: int) -> ChatRequest:
        return chat.model_copy(update={"messages": (*messages[:kept], *messages[start:])})

    def fits(start: int) -> bool:
        try:
            return prompt_length(engine, without(start)) <= most
        except RequestRefusedError:
            return False  # some templates begin with a user's message only

    starts = [at for at in range(kept + 1, len(messages)) if messages[at].role != "tool"]
    for choice in (starts, [at for at in starts if messages[at].role == "user"]):
        found = bisect_left(choice, True, key=fits)
        if found < len(choice):
            return without(choice[found])
    return chat
