"""From the text that a model generates to the message of a reply, at its end and, for streams, as far as it is certain.

`replies.py` makes a reader for each reply. The syntax of reasoning and calls is the model's own.
"""

import re
import uuid
from collections.abc import Mapping

from daemon.inference.requests import ChatRequest
from daemon.inference.schemas import CallDelta, ChatDelta, FunctionDelta, ReplyMessage
from learners.reply_format import ReplyFormat
from ratchet_client.messages import ToolCall


def is_read(request: ChatRequest, reply_format: ReplyFormat) -> bool:
    """Return whether a reply may hold more than a content; else its text is its content."""
    return _has_calls(request) or reply_format.thoughts is not None or bool(reply_format.content_begin)


class ReplyReader:
    """Reads one reply, whose text grows by `add`."""

    def __init__(self, request: ChatRequest, reply_format: ReplyFormat, special: Mapping[str, int]) -> None:
        self._format = reply_format if is_read(request, reply_format) else None
        self._tools = _has_calls(request)
        self._reasoning = request.include_reasoning
        self._special = None
        if special and self._format is not None and request.skip_special_tokens:
            longest_first = sorted(special, key=len, reverse=True)
            self._special = re.compile("|".join(map(re.escape, longest_first)))
        self._text = ""
        self._told_reasoning = self._told_content = 0

    @property
    def reads(self) -> bool:
        """False where the text is the content."""
        return self._format is not None

    def add(self, text: str) -> ChatDelta:
        """Return what can be told of the message now that `text` has come, and was not before."""
        self._text += text
        if self._format is None:
            return ChatDelta(content=text)
        reasoning, content = self._format.certain(self._text, tools=self._tools)
        return self._delta(reasoning, content)

    def message(self, *, cut: bool = False) -> ReplyMessage:
        """The whole message, when no more text is to come; `cut` where the model had not ended it."""
        if self._format is None:
            return ReplyMessage(content=self._text)
        read = self._format.parse(self._text, tools=self._tools, cut=cut)
        calls = tuple(
            each.model_copy(update={"id": f"call_{uuid.uuid4().hex[:24]}"}) if each.id == f"call_{index}" else each
            for index, each in enumerate(read.calls)
        )
        return ReplyMessage(
            content=None if read.content is None else self._shown(read.text),
            reasoning_content=(self._shown(read.reasoning_content or "") or None) if self._reasoning else None,
            tool_calls=calls or None,
        )

    def rest(self, message: ReplyMessage) -> list[ChatDelta]:
        """Return what is left to tell of the whole `message`."""
        if self._format is None:
            return []
        left = self._delta(message.reasoning_content or "", message.content or "", shown=True)
        calls = [_call_delta(index, each) for index, each in enumerate(message.tool_calls or ())]
        rest = [left] if left.content or left.reasoning_content else []
        # The end is told by itself: the SDK of OpenAI misses the end of a call that comes with it.
        return [*rest, *(ChatDelta(tool_calls=[each]) for each in calls), ChatDelta()]

    def _delta(self, reasoning: str, content: str, *, shown: bool = False) -> ChatDelta:
        if not shown:
            reasoning, content = self._shown(reasoning) if self._reasoning else "", self._shown(content)
        delta = ChatDelta(
            reasoning_content=reasoning[self._told_reasoning :] or None, content=content[self._told_content :] or None
        )
        self._told_reasoning, self._told_content = len(reasoning), len(content)
        return delta

    def _shown(self, text: str) -> str:
        return text if self._special is None else self._special.sub("", text)


def _has_calls(request: ChatRequest) -> bool:
    return bool(request.tools) and not (request.tool_choice and request.tool_choice.mode == "none")


def _call_delta(index: int, call: ToolCall) -> CallDelta:
    assert call.function is not None
    return CallDelta(
        index=index, id=call.id, function=FunctionDelta(name=call.function.name, arguments=call.function.arguments)
    )
