"""Assignment of the tokens of a scored chat to its messages, found without a tokenizer.

`PolicyClient` asks it for negative log-likelihoods.

Words cannot tell: "user" may be an observation or the template's header, and a token may be a part of a letter. Token
ids can: two chats that differ in their contents alone show what the template writes between contents, and that holds
the special tokens that part one message from the next in every other chat.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from streams.errors import PolicyError
from streams.events import Message


@dataclass(frozen=True, slots=True)
class NegativeLogLikelihood:
    """The negative log-likelihood of an observation: `nats` is the mean negative log-probability of its `tokens`
    tokens.

    They are those that the world-model objective trains: the content, and the token that ends the turn.
    """

    nats: float
    tokens: int


@dataclass(frozen=True, slots=True)
class ChatFrame:
    """The token ids that a template writes before an action, before an observation that answers one, and at the end."""

    before_action: tuple[int, ...]
    before_observation: tuple[int, ...]
    end: tuple[int, ...]


def frame_probe(content: str) -> tuple[Message, ...]:
    """A chat that shows the frame; `content` is one letter, which is one token wherever it stands."""
    return (
        # A leading system message keeps templates from adding one of their own.
        Message(role="system", content="-"),
        Message(role="user", content=content),
        Message(role="assistant", content=content),
        Message(role="user", content=content),
    )


def read_frame(first: Sequence[int], second: Sequence[int]) -> ChatFrame:
    """The frame, from the token ids of two `frame_probe` chats with different letters.

    Raises `PolicyError` when the template writes more than frame and contents.
    """
    contents = [at for at, (one, other) in enumerate(zip(first, second, strict=False)) if one != other]
    if len(first) == len(second) and len(contents) == 3:
        before, action, last = contents
        ids = tuple(first)
        frame = ChatFrame(ids[before + 1 : action], ids[action + 1 : last], ids[last + 1 :])
        if frame.before_action and frame.before_observation and frame.before_action[: len(frame.end)] == frame.end:
            return frame
    raise PolicyError(
        "the served model's chat template writes a message differently in context, so the tokens of an observation "
        "cannot be told apart: choose another base model"
    )


def observation_spans(ids: Sequence[int], messages: Sequence[Message], frame: ChatFrame) -> tuple[tuple[int, int], ...]:
    """The half-open range of the tokens of each observation among `ids`, the tokens of the whole chat `messages`.

    An observation is a user message after the first assistant message; from there on they must take turns. Raises
    `PolicyError` if they do not, or if the tokens do not show as many turns: a content holds what parts them.
    """
    roles = [message.role for message in messages]
    turns = roles[roles.index("assistant") :] if "assistant" in roles else []
    if any(role != ("assistant", "user")[at % 2] for at, role in enumerate(turns)):
        raise PolicyError(f"actions and observations must take turns to be scored, and these roles do not: {turns}")
    actions = _starts(ids, frame.before_action)
    answers = [at for at in _starts(ids, frame.before_observation) if actions and at > actions[0]]
    starts = sorted([*actions, *answers])
    counted = [len(actions), len(answers)] == [turns.count("assistant"), turns.count("user")]
    ended = tuple(ids[len(ids) - len(frame.end) :]) == frame.end
    if not counted or starts[1::2] != answers or not ended:
        raise PolicyError(
            f"the tokens of a chat show {len(actions)} actions and {len(answers)} observations, and it has "
            f"{turns.count('assistant')} and {turns.count('user')}: a message holds the template's own special tokens"
        )
    return tuple(
        # The token that ends the turn belongs to its author.
        (at + len(frame.before_observation), following + bool(frame.end))
        for at, following in pairwise([*starts, len(ids) - len(frame.end)])
        if at in answers
    )


def _starts(ids: Sequence[int], frame: Sequence[int]) -> list[int]:
    """Return the index at which `frame` begins.

    Its last token may be another: a line feed takes in those that a content begins with.
    """
    anchor = tuple(frame[:-1]) or tuple(frame)
    last = len(ids) - len(frame)
    return [at for at in range(last + 1) if ids[at] == anchor[0] and tuple(ids[at : at + len(anchor)]) == anchor]
