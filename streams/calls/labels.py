"""Says whose a captured call is, from its headers and its request's own fields, and under which key it is logged. Pure.

The gateway calls it for every request, before the request is passed on, so nothing here refuses a call: a label that
cannot be read is absent, and an id that is too long is replaced by its hash.
"""

import json
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from ratchet_client.event_fields import state_reference
from ratchet_client.headers import PREFIX
from ratchet_client.ids import content_id
from streams.calls.records import CallLabels, Face, record_key

Body: TypeAlias = Mapping[str, Any]

_LONGEST = 512
# A prompt has no messages. Its beginning is all that it shares with the prompt that continues it.
_PROMPT_OPENING = 64
_CONVERSATION_IDS = ("session_id", "conversation_id", "thread_id")


def read_labels(headers: Mapping[str, str], body: Body, principal: str | None = None) -> CallLabels:
    """The labels of a call. `headers` are named in lower case; `principal` is that of the token that came with it.

    A header wins over a field of the request, and a token over both.

    >>> labels = read_labels({"x-ratchet-task": "refund-7"}, {"metadata": {"session_id": 12}, "user": "anna"})
    >>> labels.principal, labels.conversation, labels.task, labels.episode
    ('anna', '12', 'refund-7', None)
    """

    def header(name: str) -> str | None:
        return _identity(headers.get(PREFIX + name))

    metadata = _mapping(body.get("metadata"))
    fields = (body.get("safety_identifier"), body.get("user"), metadata.get("user_id"))
    conversation = (metadata.get(name) for name in _CONVERSATION_IDS)
    return CallLabels(
        principal=principal or header("principal") or _first(fields),
        agent=header("agent"),
        episode=header("episode") or _identity(metadata.get("episode_id")),
        conversation=header("conversation") or _first((*conversation, _conversation(body.get("conversation")))),
        environment=header("environment"),
        task=header("task"),
        seed=_seed(headers.get(PREFIX + "seed")),
        state=state_reference(header("state")),
    )


def episode_key(principal: str | None, episode: str) -> str:
    """The key of what is said of the episode that a client named `episode`. `principal` is a token's, or None."""
    return record_key("episode", principal or "", episode)


def call_key(face: Face, labels: CallLabels, body: Body, principal: str | None, known: "ResponseKeys") -> str:
    """The key of a call: the same for all calls of an episode, as far as the call alone tells.

    It is that of the episode or the conversation where there is an id, of the response that it continues, or of how its
    messages begin. `principal` is that of a token: only a proved one sets episodes with the same id apart, since an
    evaluator that gives feedback on an episode need not know what its agent claimed.
    """
    owner = principal or ""
    if labels.episode is not None:
        return episode_key(principal, labels.episode)
    if labels.conversation is not None:
        return record_key("conversation", owner, labels.conversation)
    previous = _identity(body.get("previous_response_id")) if face is Face.RESPONSES else None
    if previous is not None:
        return known.get(previous) or record_key("conversation", owner, previous)
    return record_key("opening", owner, _canonical(_opening(face, body)))


class ResponseKeys:
    """The keys of the newest `most` responses, by their ids: for `previous_response_id`. Not thread-safe."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._keys: OrderedDict[str, str] = OrderedDict()

    def get(self, response_id: str) -> str | None:
        key = self._keys.get(response_id)
        if key is not None:
            self._keys.move_to_end(response_id)
        return key

    def remember(self, response_id: str, key: str) -> None:
        self._keys[response_id] = key
        self._keys.move_to_end(response_id)
        while len(self._keys) > self._most:
            self._keys.popitem(last=False)


def _opening(face: Face, body: Body) -> object:
    """Return what stays when a conversation goes on: the instructions and all up to the user's first message."""
    if face is Face.COMPLETIONS:
        prompt = body.get("prompt")
        return prompt[:_PROMPT_OPENING] if isinstance(prompt, str | list) else prompt
    if face is Face.RESPONSES:
        return [body.get("instructions"), _to_first_user(body.get("input"))]
    messages = _to_first_user(body.get("messages"))
    return [body.get("system"), messages] if face is Face.ANTHROPIC else messages


def _to_first_user(messages: object) -> object:
    if not isinstance(messages, Sequence) or isinstance(messages, str):
        # The Responses API takes a text for one message of the user.
        return [["user", messages]]
    opening = []
    for message in messages:
        said = _mapping(message)
        opening.append([said.get("role"), _content(said.get("content"))] if "role" in said else message)
        if said.get("role") == "user":
            break
    return opening


def _content(content: object) -> object:
    """A content without what clients set again in each call: marks such as Anthropic's `cache_control` come and go.

    A text and a list with that text alone are the same.
    """
    if not isinstance(content, list):
        return content
    parts = [{name: value for name, value in _mapping(part).items() if name != "cache_control"} for part in content]
    if all(isinstance(part.get("text"), str) for part in parts):
        return "\n".join(part["text"] for part in parts)
    return parts


def _canonical(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"))


def _mapping(value: object) -> Body:
    return value if isinstance(value, Mapping) else {}


def _first(values: Sequence[object]) -> str | None:
    return next((found for value in values if (found := _identity(value)) is not None), None)


def _conversation(value: object) -> object:
    """OpenAI's Responses name a conversation by its id, or by an object with it."""
    return value.get("id") if isinstance(value, Mapping) else value


def _identity(value: object) -> str | None:
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str) or not (text := value.strip()):
        return None
    return text if len(text) <= _LONGEST else content_id(text)


def _seed(text: str | None) -> int | None:
    try:
        seed = int(text or "")
    except ValueError:
        return None
    return seed if -(2**63) <= seed < 2**63 else None
