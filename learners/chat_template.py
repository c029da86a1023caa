"""A base model's chat template: from messages and tools to the text that a server writes for them.

Messages are given to it as vLLM and Transformers give them, so that both read the same prompt. `learners.chat` turns
the text into tokens, `learners.reply_format` reads from it how the model calls tools.
"""

import json
import re
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, cast

from transformers import PreTrainedTokenizerFast

from learners.special_tokens import MARK, SpecialTokens
from ratchet_client.errors import ConfigurationError
from ratchet_client.messages import (
    Message,
    ToolCall,
    ToolDefinition,
    Tools,
    as_definition,
    assistant,
    call,
    is_function,
    tool_result,
    user,
)
from streams.errors import ChatTemplateError

PROBE_TOOL: ToolDefinition = {
    "type": "function",
    "function": {
        "name": "find_route",
        "description": "Find a route.",
        "parameters": {
            "type": "object",
            "properties": {"destination": {"type": "string", "description": "Its name."}},
            "required": ["destination"],
        },
    },
}
# Levels of arguments. Walks through values are recursive, and so are templates.
_DEEPEST = 64
_OPENS_REASONING = re.compile(r"<(think|thinking|reasoning)>\s*\Z")
# Some templates take no ids but those of nine letters and digits.
_PROBE_CALL = call("find_route", json.dumps({"destination": MARK}), "abcdefgh0")


class ChatTemplate:
    """The chat template of one base model, whose name is `name`; `switches` are variables that it gets."""

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerFast,
        special: SpecialTokens,
        name: str,
        switches: Mapping[str, str | bool] | None = None,
    ) -> None:
        """Raises `ConfigurationError` when the tokenizer has none."""
        if not tokenizer.chat_template:
            raise ConfigurationError(
                f"the tokenizer of {name} has no chat template: add chat_template.jinja, or name an instruct model"
            )
        self.name = name
        self._tokenizer = tokenizer
        self._special = special
        self._switches = dict(switches or {})
        self._knows_developers = "developer" in str(tokenizer.chat_template)

    def with_effort(self, effort: str) -> "ChatTemplate":
        """The template that is told how much to reason, by the variables that vLLM sets for it.

        `none` is not to reason at all. A template that reads none of them stays as it is.
        """
        source = str(self._tokenizer.chat_template)
        told: dict[str, str | bool] = {"reasoning_effort": effort, "enable_thinking": effort != "none"}
        switches = {name: value for name, value in told.items() if name in source}
        return ChatTemplate(self._tokenizer, self._special, self.name, switches) if switches else self

    def names_special(self, messages: Sequence[Message], tools: Tools) -> bool:
        """Return whether any text that the template gets names a special token.

        Raises `ChatTemplateError` for messages that are not text, and tools that are not functions.
        """
        try:
            return self._special.named_in([self._chat(messages), _offered(tools)])
        except RecursionError as error:
            raise ChatTemplateError("a tool is described by JSON that is nested too deep to be rendered") from error

    def render(self, messages: Sequence[Message], tools: Tools = (), *, literal: bool = False, prompt: bool) -> str:
        """The rendered chat; with `prompt`, up to where an assistant's message begins.

        With `literal`, special tokens of the template are aliases, and those of messages and tools text. Raises
        `ChatTemplateError` when the template refuses the chat or would leave out a part of it.
        """
        if self.tools_ignored is not None and (tools or _speaks_of_tools(messages)):
            raise ChatTemplateError(self.tools_ignored)
        if any(len(message.calls) > 1 for message in messages) and not self._writes_parallel_calls:
            raise ChatTemplateError(
                f"the chat template of {self.name} leaves out all tool calls of a message but one: choose another base "
                "model or template, or have agents send parallel_tool_calls=false"
            )
        return self._render(messages, tools, literal=literal, prompt=prompt)

    def turn(
        self, messages: Sequence[Message], reply: Message, tools: Tools = (), *, literal: bool = False
    ) -> tuple[str, str]:
        """The prompt of the chat `messages`, and `reply` as the model writes it behind that prompt.

        Reasoning is left out where the template writes none there. Raises `ChatTemplateError` when the template refuses
        the chat, or does not write `reply` behind its own prompt.
        """
        before = self.render(messages, tools, literal=literal, prompt=True)
        for said in (reply, reply.spoken()):
            whole = self.render([*messages, said], tools, literal=literal, prompt=False)
            if whole.startswith(before):
                return before, whole[len(before) :]
        opened = _OPENS_REASONING.search(before)
        if opened is None or not whole.startswith(before[: opened.start()]):
            raise ChatTemplateError(
                f"the chat template of {self.name} does not write an assistant's message as it prompts for one "
                f"(its prompt ends with {before[-20:]!r}), so replies cannot be trained as they are served: "
                "choose another base model or template"
            )
        # Such a template writes no reasoning back, so the prompt alone says how the model does.
        closed = f"{reply.reasoning_content or ''}\n</{opened[1]}>\n\n"
        return before, closed + whole[opened.start() :]

    @cached_property
    def tools_ignored(self) -> str | None:
        """The reason for which chats with tools cannot be rendered, None where they can."""
        chat = [user("Go."), assistant(None, _PROBE_CALL), tool_result(f"there{MARK}", _PROBE_CALL.id)]
        try:
            offered = self._render(chat[:1], (PROBE_TOOL,), literal=False, prompt=True)
            rendered = self._render(chat, (), literal=False, prompt=False)
        except ChatTemplateError as error:
            return f"{error}, so tools can be neither served nor trained: choose another base model or template"
        wanted = {
            "leaves out the tools that are offered": ("find_route" in offered, "destination" in offered),
            "leaves out tool calls": (
                "find_route" in rendered,
                "destination" in rendered,
                MARK in rendered.replace(f"there{MARK}", ""),
            ),
            "leaves out the results of tools": (f"there{MARK}" in rendered,),
        }
        missing = next((reason for reason, found in wanted.items() if not all(found)), "")
        return f"the chat template of {self.name} {missing}: choose another base model or template" if missing else None

    @cached_property
    def _writes_parallel_calls(self) -> bool:
        other = call("measure_depth", "{}", "abcdefgh1")
        try:
            rendered = self._render([user("Go."), assistant(None, _PROBE_CALL, other)], (), literal=False, prompt=False)
        except ChatTemplateError:
            return True  # it says so itself, in its own words
        return "find_route" in rendered and "measure_depth" in rendered

    def _render(self, messages: Sequence[Message], tools: Tools, *, literal: bool, prompt: bool) -> str:
        chat, offered = self._chat(messages), _offered(tools)
        if literal:
            chat, offered = self._special.masked(chat), self._special.masked(offered)
        try:
            text = cast(
                str,
                self._tokenizer.apply_chat_template(
                    cast(Any, chat),
                    tools=cast(Any, offered or None),
                    add_generation_prompt=prompt,
                    tokenize=False,
                    **cast(Any, self._switches),
                ),
            )
        # A template is a program of somebody else's: it may fail in any way.
        except Exception as error:
            with_tools = " with tools" if tools else ""
            raise ChatTemplateError(
                f"the chat template of {self.name} refuses the roles {_roles(messages)}{with_tools}: {error}"
            ) from error
        return self._special.unmasked(text) if literal else text

    def _chat(self, messages: Sequence[Message]) -> list[dict[str, Any]]:
        if any(not message.is_readable for message in messages):
            raise ChatTemplateError(
                "a message has a part that is not text, such as an image: only text can be served and trained"
            )
        return [self._given(message) for message in messages]

    def _given(self, message: Message) -> dict[str, Any]:
        """A message as the template gets it: what it is not made for is left out, null is an empty text."""
        # A template that does not know developers drops their words, or writes a role that no model has learned.
        role = "system" if message.role == "developer" and not self._knows_developers else message.role
        given: dict[str, Any] = {"role": role, "content": message.text}
        name = (message.model_extra or {}).get("name")
        given |= {"name": name} if isinstance(name, str) else {}
        given |= {"tool_call_id": message.tool_call_id} if message.tool_call_id is not None else {}
        given |= {"tool_calls": [_given_call(each) for each in message.calls]} if message.calls else {}
        if message.reasoning_content is not None:
            # Templates have no common name for it.
            given |= dict.fromkeys(("reasoning_content", "reasoning", "thinking"), message.reasoning_content)
        return given


def _given_call(each: ToolCall) -> dict[str, Any]:
    function = each.function
    assert function is not None  # of readable messages
    return {
        "id": each.id,
        "type": each.type,
        "function": {"name": function.name, "arguments": _arguments(function.arguments)},
    }


def _arguments(text: str) -> Any:
    """Arguments as templates expect them: the value that the JSON text stands for, or the text where it is not JSON.

    JSON that is nested too deep to be walked through stays text, too.
    """
    if not text.strip():
        return {}
    try:
        value = json.loads(text)
        # Half a surrogate pair is JSON, and no text that could be tokenised.
        json.dumps(value, ensure_ascii=False).encode()
    except (ValueError, RecursionError):
        return text
    return text if _is_deep(value) else value


def _is_deep(value: Any) -> bool:
    level = [value]
    for _ in range(_DEEPEST):
        level = [
            inner
            for outer in level
            if isinstance(outer, dict | list)
            for inner in (outer.values() if isinstance(outer, dict) else outer)
        ]
        if not level:
            return False
    return True


def _offered(tools: Tools) -> list[dict[str, Any]]:
    """Tools with the order of fields, and the nulls, with which vLLM gives them to the template."""
    first: ToolDefinition = {"name": None, "description": None, "parameters": None}
    found = []
    for tool in map(as_definition, tools):
        function = tool.get("function")
        if not isinstance(function, dict) or not is_function(tool):
            raise ChatTemplateError("a tool is not a function with a name: only functions can be served and trained")
        found.append({"type": "function", "function": None} | tool | {"function": first | function})
    return found


def _speaks_of_tools(messages: Sequence[Message]) -> bool:
    return any(message.role == "tool" or message.calls for message in messages)


def _roles(messages: Sequence[Message]) -> str:
    return ", ".join(message.role for message in messages[:6]) + (", …" if len(messages) > 6 else "")
