"""Assignment of the tokens of a scored chat to its observations, found without a tokenizer.

`PolicyClient` asks it for negative log-likelihoods.

Words cannot tell: "user" may be an observation or the template's header, and a token may be a part of a letter. Token
ids can: two chats that differ in their contents alone show what the template writes between contents, and that holds
the special tokens that part one turn from the next in every other chat.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from ratchet_client.messages import Message, assistant, call, user
from streams.errors import PolicyError


@dataclass(frozen=True, slots=True)
class NegativeLogLikelihood:
    """The negative log-likelihood of an observation: `nats` is the mean negative log-probability of its `tokens`
    tokens.

    They are those that the world-model objective trains: from the first content to the token that ends the turn.
    """

    nats: float
    tokens: int


@dataclass(frozen=True, slots=True)
class Observed:
    """The place of an observation in a chat: the messages from `begin` up to `end`; `action` actions precede it."""

    begin: int
    end: int
    action: int


@dataclass(frozen=True, slots=True)
class ChatFrame:
    """The text that a template writes between contents, in token ids.

    `before_action` begins with the token `end_of_observation`, and `before_observation`, by the role of an
    observation's first message, with the token `end_of_action`.
    """

    before_action: tuple[int, ...]
    before_observation: Mapping[str, tuple[int, ...]]

    @property
    def end_of_observation(self) -> int:
        return self.before_action[0]

    @property
    def end_of_action(self) -> int:
        return self.before_observation["user"][0]


def observed(messages: Sequence[Message]) -> tuple[Observed, ...]:
    """The observations of a chat: what stands between an assistant's message and the next one, or the end."""
    actions = [at for at, message in enumerate(messages) if message.role == "assistant"]
    turns = enumerate(pairwise([*actions, len(messages)]), start=1)
    return tuple(Observed(action + 1, end, number) for number, (action, end) in turns if action + 1 < end)


def frame_probe(content: str, role: str = "user") -> tuple[Message, ...]:
    """A chat that shows the frame of an observation which begins with a message of `role`.

    `content` is one letter, which is one token wherever it stands.
    """
    calls = (call("look", "{}", "abcdefgh0"),) if role == "tool" else ()
    fields = {"tool_call_id": "abcdefgh0"} if calls else {}
    answer = Message.model_validate({"role": role, "content": content, **fields})
    return (user(content), assistant(content, *calls), answer)


def read_frame(first: Sequence[int], second: Sequence[int]) -> ChatFrame:
    """The frame, from the token ids of two `frame_probe` chats of a user with different letters.

    Raises `PolicyError` when the template writes more than frame and contents.
    """
    contents = _differences(first, second)
    if len(contents) == 3:
        before, action, last = contents
        ids = tuple(first)
        if before + 1 < action and action + 1 < last < len(ids) - 1:
            return ChatFrame(ids[before + 1 : action], {"user": ids[action + 1 : last]})
    raise _unlike_in_context()


def with_role(frame: ChatFrame, role: str, first: Sequence[int], second: Sequence[int]) -> ChatFrame:
    """`frame` with what stands before observations that begin with `role`, read from two `frame_probe` chats of it.

    Raises `PolicyError` when the template ends the action before them in a way of its own.
    """
    contents = _differences(first, second)
    content = contents[-1] if contents else 0
    ends = [at for at in range(content) if first[at] == frame.end_of_action]
    # The first message of a user ends, too; the action behind it has to end alike.
    if len(contents) < 2 or not ends or ends[-1] < contents[-2]:
        raise _unlike_in_context()
    header = tuple(first[ends[-1] : content])
    return replace(frame, before_observation={**frame.before_observation, role: header})


def observation_spans(ids: Sequence[int], messages: Sequence[Message], frame: ChatFrame) -> tuple[tuple[int, int], ...]:
    """The half-open range of the tokens of each observation among `ids`, the tokens of the whole chat `messages`.

    `frame` knows the roles that they begin with. Raises `PolicyError` if the tokens do not show as many turns: a
    content holds what parts them, or the template writes a message differently in context.
    """
    actions = _starts(ids, frame.before_action)
    said = sum(message.role == "assistant" for message in messages)
    if len(actions) != said:
        raise _unlike_chat(f"{len(actions)} actions, and it has {said}")
    spans = []
    for each in observed(messages):
        after = actions[each.action - 1]
        # A chat need not end with an action; what ends the last observation is then found from behind.
        following = actions[each.action] if each.action < said else None
        header = frame.before_observation[messages[each.begin].role]
        stop = len(ids) if following is None else following
        headers = [at for at in _starts(ids[:stop], header) if at > after]
        if not 1 <= len(headers) <= each.end - each.begin:
            raise _unlike_chat(f"{len(headers)} messages behind an action, and it has {each.end - each.begin}")
        begin = headers[0] + len(header)
        if following is None:
            ends = [at for at in range(begin, stop) if ids[at] == frame.end_of_observation]
            if not ends:
                raise _unlike_chat("no end of its last message")
            following = ends[-1]
        # The token that ends the turn belongs to its author.
        spans.append((begin, following + 1))
    return tuple(spans)


def action_span(ids: Sequence[int], messages: Sequence[Message], frame: ChatFrame) -> tuple[int, int]:
    """The half-open range of the tokens of the action with which the chat `messages` ends, without its end token.

    Raises `PolicyError` as `observation_spans` does.
    """
    actions = _starts(ids, frame.before_action)
    said = sum(message.role == "assistant" for message in messages)
    if len(actions) != said or not said:
        raise _unlike_chat(f"{len(actions)} actions, and it has {said}")
    begin = actions[-1] + len(frame.before_action)
    ends = [at for at in range(begin, len(ids)) if ids[at] == frame.end_of_action]
    if not ends:
        raise _unlike_chat("no end of its last action")
    return begin, ends[-1]


def _differences(first: Sequence[int], second: Sequence[int]) -> list[int]:
    """The indices at which two chats differ, none where they differ in length."""
    if len(first) != len(second):
        return []
    return [at for at, (one, other) in enumerate(zip(first, second, strict=True)) if one != other]


def _starts(ids: Sequence[int], frame: Sequence[int]) -> list[int]:
    """Return the index at which `frame` begins.

    Its last token may be another: a line feed takes in those that a content begins with.
    """
    anchor = tuple(frame[:-1]) or tuple(frame)
    last = len(ids) - len(frame)
    return [at for at in range(last + 1) if ids[at] == anchor[0] and tuple(ids[at : at + len(anchor)]) == anchor]


def _unlike_in_context() -> PolicyError:
    return PolicyError(
        "the served model's chat template writes a message differently in context, so the tokens of an observation "
        "cannot be told apart: choose another base model"
    )


def _unlike_chat(shown: str) -> PolicyError:
    return PolicyError(
        f"the tokens of a chat show {shown}: a message holds the template's own special tokens, or the template writes "
        "it differently in context"
    )
