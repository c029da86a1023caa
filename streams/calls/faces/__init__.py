"""Captured calls of every face of the API, read into chats. Each face has a module; `bodies` reads what they share.

A face reads a request's messages and tools, and a reply, streamed or not, that is whole. To add one, give `Face` its
path, and `_exchanges` what its module reads.
"""

from collections.abc import Iterable

from ratchet_client.messages import Message, Messages, Tools
from streams.calls.absence import Absence
from streams.calls.chat import Chat
from streams.calls.faces import anthropic, chat_completions, completions, responses
from streams.calls.faces.bodies import Body, Stream, read_object, read_reply, refuse
from streams.calls.faces.responses import Earlier
from streams.calls.records import CapturedCall, Face

__all__ = ["Body", "Earlier", "read_call", "response_messages", "seen_by", "tools_offered"]


def read_call(call: CapturedCall, earlier: Earlier | None = None) -> list[Chat]:
    """The chats that a call is: one, or one for each choice where several were asked for.

    `earlier` gives the messages that a request of the Responses API names by its `previous_response_id`, those of
    `response_messages`; without it such a request is incomplete.

    Raises:
        AbsentContentError: the call was cut, failed, or is not understood; its `absence` says which.
    """
    if not 200 <= call.status < 300:
        refuse(Absence.FAILED, f"the call was answered with status {call.status}")
    if call.cut_at is not None:
        refuse(Absence.CUT_OFF, f"the call was captured up to {call.cut_at} characters")
    request = read_object(call.request, "request")
    reply = read_reply(call.reply)
    # Of a stream its own end is what counts: a client may leave once it has all.
    if not call.complete and not isinstance(reply, Stream):
        refuse(Absence.INCOMPLETE, "the reply ended early")
    tools = tools_offered(call.face, request)
    chats = (
        Chat.of(messages, action, call.served, tools)
        for messages, action in _exchanges(call.face, request, reply, earlier)
    )
    return [chat for chat in chats if chat is not None]


def seen_by(face: Face, request: Body, earlier: Earlier | None = None) -> Messages:
    """The messages that a request shows the model. Raises `AbsentContentError`.

    A request for completions is not a chat: it has one for each of its prompts.
    """
    if face is Face.RESPONSES:
        return responses.seen(request, earlier)
    return anthropic.seen(request) if face is Face.ANTHROPIC else chat_completions.seen(request)


def tools_offered(face: Face, request: Body) -> Tools:
    """The tools that a request offers, functions in the form of chat completions. Raises `AbsentContentError`."""
    match face:
        case Face.CHAT:
            return chat_completions.offered(request)
        case Face.RESPONSES:
            return responses.offered(request)
        case Face.ANTHROPIC:
            return anthropic.offered(request)
        case Face.COMPLETIONS:
            return ()


def response_messages(call: CapturedCall, chat: Chat) -> tuple[str, Messages] | None:
    """The id of a response that was read as `chat`, and the messages that a request which names it continues.

    The instructions are not among them: a request has its own.
    """
    if call.face is not Face.RESPONSES:
        return None
    identity = responses.response_id(read_reply(call.reply))
    if identity is None:
        return None
    own = len(responses.instructions(read_object(call.request, "request")))
    return identity, (*chat.messages[own:], chat.action)


def _exchanges(
    face: Face, request: Body, reply: Body | Stream, earlier: Earlier | None
) -> Iterable[tuple[Messages, Message]]:
    match face:
        case Face.CHAT:
            seen = chat_completions.seen(request)
            return [(seen, action) for action in chat_completions.replies(request, reply)]
        case Face.COMPLETIONS:
            return list(completions.exchanges(request, reply))
        case Face.RESPONSES:
            return [(responses.seen(request, earlier), responses.reply_of(reply))]
        case Face.ANTHROPIC:
            return [(anthropic.seen(request), anthropic.reply_of(reply))]
