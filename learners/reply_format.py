"""From the text that a model generates to the message it says: reasoning, content, tool calls.

The syntax is read from the chat template: it shows in which words it writes a message of each kind, so a reply is read
as the template would write it back. The server and `learners.chat` ask `reply_format` for it.
"""

import json
from collections.abc import Set
from dataclasses import dataclass, replace

from learners.call_syntax import SPACE, CallSyntax, members_of
from learners.chat_template import PROBE_TOOL, ChatTemplate
from ratchet_client.messages import Message, ToolCall, assistant, call, user
from streams.errors import ChatTemplateError

# Llama-3 writes it before a call as it likes.
_PYTHON_TAG = "<|python_tag|>"
_CONTENT, _REASONING = "Twelve.", "Seven and five."
_NAME = "find_route"
_CALLS = tuple(
    call(_NAME, json.dumps({"destination": place}), f"abcdefgh{n}") for n, place in enumerate(("Oslo", "Rome"))
)


@dataclass(frozen=True, slots=True)
class Thoughts:
    """Reasoning stands between `begin` and `end` at the start of a reply; where `prompted`, the prompt says `begin`."""

    begin: str
    end: str
    prompted: bool

    def within(self, text: str) -> str | None:
        """Return what follows the begin of reasoning in `text`, None where the text does not start with any."""
        start, marker = text.lstrip(SPACE), self.begin.strip(SPACE)
        if marker and start.startswith(marker):
            return start.removeprefix(marker)
        return text if self.prompted else None

    def may_begin(self, text: str) -> bool:
        """Return whether `text` may still turn out to begin with reasoning, and does not yet."""
        marker = self.begin.strip(SPACE)
        start = text.lstrip(SPACE)
        return marker != start and marker.startswith(start)

    def parted(self, body: str) -> tuple[str, str | None]:
        """Reasoning and what follows it, None where it has not ended; line feeds around it are the template's."""
        reasoning, end, rest = body.partition(self.end.strip(SPACE))
        if "\n" in self.begin + self.end:
            reasoning, rest = reasoning.strip("\n"), rest.lstrip("\n")
        return reasoning, rest if end else None


@dataclass(frozen=True, slots=True)
class ReplyFormat:
    """The syntax of a model's replies: `thoughts` before, `content_begin` and `content_end` around the content.

    `thoughts` is None where the template writes none. `tools_refused` is the reason for which tool calls cannot be
    read, None where they can and `calls` says how.
    """

    thoughts: Thoughts | None = None
    content_begin: str = ""
    content_end: str = ""
    calls: CallSyntax | None = None
    tools_refused: str | None = None

    def parse(self, text: str, *, tools: bool = True, cut: bool = False) -> Message:
        """The message in a generated text: special tokens kept, without the token that ends the turn.

        Text that is not a valid call up to its end stays content; so does all text without `tools`. Arguments are the
        model's own words. Calls get the ids `call_0`, `call_1` and so on, unless the model writes ids itself.

        Of a text that was `cut` before its end, the calls that are complete are read, and what may be the begin of
        another is left out.
        """
        reasoning, rest = self._parted(text)
        content = (rest or "").removesuffix(self.content_end)
        calls: tuple[ToolCall, ...] = ()
        said = bool(content)
        if tools and self.calls is not None:
            content, calls = self._without_calls(self.calls, content, cut=cut)
        empty = not content and bool(said or reasoning)
        return assistant(None if empty else content, *calls, reasoning=reasoning or None)

    def certain(self, text: str, *, tools: bool = True) -> tuple[str, str]:
        """Of an unfinished text, the reasoning and the content that no later token can take back or change."""
        if self.thoughts is not None and self.thoughts.may_begin(text):
            return "", ""
        reasoning, rest = self._parted(text)
        if rest is None:
            assert self.thoughts is not None
            end = self.thoughts.end.strip(SPACE)
            return _held_back(reasoning, end).rstrip("\n"), ""
        if self.content_begin != rest and self.content_begin.startswith(rest):
            return reasoning, ""
        return reasoning, self._certain_content(rest, tools=tools)

    def _parted(self, text: str) -> tuple[str, str | None]:
        """Reasoning, and the rest without what begins a content; None where the reasoning has not ended."""
        body = self.thoughts.within(text) if self.thoughts is not None else None
        reasoning, rest = ("", text) if body is None or self.thoughts is None else self.thoughts.parted(body)
        return reasoning, None if rest is None else rest.removeprefix(self.content_begin)

    def _without_calls(self, syntax: CallSyntax, text: str, *, cut: bool) -> tuple[str, tuple[ToolCall, ...]]:
        opening = syntax.begin.strip(SPACE)
        if not opening:
            bare = text.strip(SPACE)
            if cut and bare and _PYTHON_TAG.startswith(bare):
                return "", ()
            calls = syntax.read(bare.removeprefix(_PYTHON_TAG), 0, cut=cut) if bare else None
            return (text, ()) if calls is None else ("", calls)
        start = text.find(opening)
        while start >= 0:
            calls = syntax.read(text, start, cut=cut)
            if calls is not None:
                return _before_calls(text[:start], syntax.separator), calls
            start = text.find(opening, start + 1)
        begun = _held_back(text, opening) if cut else text
        return (text if begun == text else _before_calls(begun, syntax.separator)), ()

    def _certain_content(self, content: str, *, tools: bool) -> str:
        certain = content
        if tools and self.calls is not None:
            opening, start = self.calls.begin.strip(SPACE), content.lstrip(SPACE)
            if not opening:
                if any(mark.startswith(start) or start.startswith(mark) for mark in ("{", _PYTHON_TAG)):
                    return ""
            else:
                before, begun, _ = certain.partition(opening)
                certain = before if begun else _held_back(before, opening)
                certain = _held_back(certain, self.calls.separator).removesuffix(self.calls.separator)
                certain = certain if certain.strip(SPACE) else ""
        if self.content_end:
            ended = _held_back(content, self.content_end).removesuffix(self.content_end)
            certain = min(certain, ended, key=len)
        return certain


def reply_format(template: ChatTemplate, stops: Set[str]) -> ReplyFormat:
    """The syntax of the replies that `template` writes, which end with one of the texts `stops`."""
    probes = _Probes(template, stops)
    found = ReplyFormat()
    plain, thought = probes.text(assistant(_CONTENT)), probes.text(assistant(_CONTENT, reasoning=_REASONING))
    begin, said, end = (plain or "").partition(_CONTENT)
    if thought is not None and thought.partition(_CONTENT)[0].count(_REASONING) == 1:
        before, _, behind = thought.partition(_CONTENT)[0].partition(_REASONING)
        thoughts = Thoughts(before, behind, prompted=not before)
        # What stands before a content without reasoning may be empty reasoning.
        body = thoughts.within(begin)
        rest = begin if body is None else thoughts.parted(body)[1]
        found = replace(found, thoughts=thoughts, content_begin=rest or "")
    elif said:
        found = replace(found, content_begin=begin)
    found = replace(found, content_end=end)
    if template.tools_ignored is not None:
        return replace(found, tools_refused=template.tools_ignored)
    syntax = _call_syntax(probes, found)
    with_calls = replace(found, calls=syntax)
    if syntax is None or not probes.are_read_by(with_calls):
        return replace(
            found,
            tools_refused=f"the chat template of {template.name} does not write a tool call as a JSON object with its "
            "name and its arguments, so calls cannot be read from replies: choose another base model or template",
        )
    return with_calls


class _Probes:
    """The texts of replies as the template writes them."""

    def __init__(self, template: ChatTemplate, stops: Set[str]) -> None:
        self._template = template
        self._stops = stops

    def text(self, reply: Message) -> str | None:
        """The text of `reply` behind the prompt, without its end; None where the template does not write it."""
        try:
            _, text = self._template.turn([user("Go.")], reply, (PROBE_TOOL,) if reply.calls else ())
        except ChatTemplateError:
            return None
        return text[: min((at for stop in self._stops if (at := text.find(stop)) >= 0), default=len(text))]

    def are_read_by(self, found: ReplyFormat) -> bool:
        """Return whether calls, as the template writes them, are read as the calls they are."""
        for calls in (_CALLS[:1], _CALLS):
            text = self.text(assistant(None, *calls))
            read = found.parse(text or "").calls
            said = [(each.function.name, json.loads(each.function.arguments)) for each in read if each.function]
            if said != [(_NAME, json.loads(each.function.arguments)) for each in calls if each.function]:
                # A template may refuse, or leave out, all calls but one.
                return len(calls) > 1 and found.calls is not None and found.calls.between is None
        return True


def _call_syntax(probes: _Probes, found: ReplyFormat) -> CallSyntax | None:
    """The syntax of a tool call that is a JSON object with a name and with arguments."""
    one, both = (found._parted(probes.text(assistant(None, *calls)) or "")[1] or "" for calls in (_CALLS[:1], _CALLS))
    spoken = found._parted(probes.text(assistant(_CONTENT, _CALLS[0])) or "")[1] or ""
    for start in (at for at, letter in enumerate(one) if letter == "{"):
        try:
            members, stop = members_of(one, start)
            values = {key: json.loads(raw) for key, raw in members.items()}
        except ValueError:
            continue
        name_key = next((key for key, value in values.items() if value == _NAME), None)
        arguments_key = next((key for key, value in values.items() if value == {"destination": "Oslo"}), None)
        if name_key is None or arguments_key is None:
            continue
        begin, end = one[:start], one[stop:].removesuffix(found.content_end)
        inner = both.removeprefix(one[:stop])
        second = one[start:stop].replace("Oslo", "Rome").replace("abcdefgh0", "abcdefgh1")
        between = inner.partition(second)[0] if inner != both and second in inner else None
        separator = spoken.partition(_CONTENT)[2].partition(begin.strip(SPACE) or "{")[0] if _CONTENT in spoken else ""
        return CallSyntax(begin, end, between, separator, name_key, arguments_key, frozenset(values))
    return None


def _before_calls(text: str, separator: str) -> str:
    """The content that is the `text` before calls; white space alone is none."""
    content = text.removesuffix(separator)
    return content if content.strip(SPACE) else ""


def _held_back(text: str, mark: str) -> str:
    """`text` without the end of it that may turn out to be the begin of `mark`."""
    for length in range(min(len(mark) - 1, len(text)), 0, -1):
        if text.endswith(mark[:length]):
            return text[:-length]
    return text
