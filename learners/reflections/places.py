"""The place of a rationale in a reply: only where what is trained is served, and read as the action it precedes."""

from dataclasses import dataclass

from learners.chat import ChatTokenizer
from learners.chat_template import PROBE_TOOL
from learners.packing import reasoned
from ratchet_client.messages import Message, assistant, call, user
from streams.environments.harness import ChatHarness
from streams.errors import ChatTemplateError

# Tokens of a long rationale and a call. A reply that is cut off holds no action.
_ROOM = 224
_RATIONALE = "Food spoils outside, so it is put away first."
_PROBE = assistant(None, call("find_route", '{"destination":"Oslo"}', "abcdefgh0"))


@dataclass(frozen=True, slots=True)
class Places:
    """The kinds of actions that a rationale may precede: tool calls, and texts."""

    calls: bool
    texts: bool

    def admits(self, action: Message) -> bool:
        return self.calls if action.calls else self.texts


def places(tokenizer: ChatTokenizer, harness: ChatHarness | None, *, reasoning: bool) -> Places:
    """The places that a base model has as `harness` reads it; None is an agent of which no harness is known.

    With `reasoning` a rationale is the model's reasoning where the chat template writes any. Else it is content: before
    calls if the template writes both, and before a text only if the harness takes the last line for the action.
    """
    thought = reasoning and tokenizer.reply_format.thoughts is not None
    if harness is not None and harness.max_tokens < _ROOM:
        return Places(calls=False, texts=False)
    # Without a harness, an agent of its own reads the reply as its API has it: reasoning apart, calls apart.
    reply = "message" if harness is None else harness.reply
    return Places(
        calls=reply == "message" and _writes_before_calls(tokenizer, thought=thought),
        texts=reply == "last_line" or (reply == "message" and thought),
    )


def _writes_before_calls(tokenizer: ChatTokenizer, *, thought: bool) -> bool:
    """Return whether a call with a rationale before it is read back as both of them."""
    reply = reasoned(_PROBE, _RATIONALE, thought=thought)
    try:
        turn = tokenizer.reply([user("Go.")], reply, (PROBE_TOOL,))
    except ChatTemplateError:
        return False
    begin, end = turn.written
    read = tokenizer.reply_format.parse(str(tokenizer.tokenizer.decode(list(turn.ids[begin : end - 1]))))
    said = read.reasoning_content if thought else read.text
    called = [each.function.name for each in read.calls if each.function is not None]
    return called == ["find_route"] and (said or "").strip() == _RATIONALE
