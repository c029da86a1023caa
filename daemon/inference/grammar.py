"""Grammars that a reply has to follow: calls of the offered functions, JSON of a schema. `requests.py` asks for them.

A grammar is text in the Lark dialect of llguidance. JSON is written as chat templates write it, with one space behind
colons and commas and no other: a model that may write white space where it likes can go on with it to the end.
"""

import json
import re
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from llguidance import LLMatcher, LLTokenizer
from llguidance import LLParserLimits as Limits

from learners.call_syntax import CallSyntax
from learners.reply_format import ReplyFormat
from streams.errors import RequestRefusedError

# Agents send the same tools with every request.
_KEPT = 32
# Characters, and symbols: a schema with thousands of properties takes seconds to compile and is refused.
_LONGEST = 100_000
_LARGEST = 20_000


@dataclass(frozen=True, slots=True)
class AnswerRule:
    """The right-hand side of a rule of a grammar, and the field of the request that it comes from."""

    field: str
    rule: str


def json_schema(field: str, schema: Any, *, strict: bool) -> AnswerRule:
    """The rule of JSON that a schema describes.

    A keyword of a `strict` schema that is not supported is an error when the grammar is compiled; else it is ignored.
    """
    if isinstance(schema, dict):
        options = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": ", "lenient": not strict}
        schema = schema | {"x-guidance": options}
    return AnswerRule(field, f"%json {json.dumps(schema)}")


@dataclass(frozen=True, slots=True)
class Calls:
    """The calls that a reply may or has to make: of `functions`, from their names to the rules of their arguments.

    With `strict` no other call may be begun, even where none has to be made.
    """

    functions: Mapping[str, AnswerRule]
    mode: Literal["none", "auto", "required"]
    parallel: bool
    strict: bool


class ReplyGrammar:
    """Writes grammars of replies in one model's format, whose tokenizer has the `special` tokens, by their text."""

    def __init__(self, reply_format: ReplyFormat, special: Mapping[str, int]) -> None:
        self._format = reply_format
        self._special = special
        longest_first = sorted(special, key=len, reverse=True)
        self._split = re.compile(f"({'|'.join(map(re.escape, longest_first))})") if special else None

    def text(self, calls: Calls | None, answer: AnswerRule | None) -> str | None:
        """The grammar of a reply that makes `calls`, or else is JSON of `answer` or any text; None where all is free.

        Raises `RequestRefusedError` for demands on calls where the model has no syntax for them.
        """
        if calls is None or (calls.mode == "none" and answer is not None):
            return None if answer is None else self._grammar(self._reply("content"), *self._answer(answer))
        if answer is None and calls.mode == "auto" and calls.parallel and not calls.strict:
            return None
        syntax = self._format.calls
        if syntax is None:
            if calls.mode == "none":
                return None
            raise RequestRefusedError(
                400,
                "unsupported",
                "tool_choice, parallel_tool_calls, strict functions or response_format beside tools: no call can be "
                f"demanded of this model, {self._format.tools_refused or 'which writes none'}; leave them out",
            )
        if calls.mode == "none":
            return self._grammar(self._reply("content"), *self._content(syntax))
        rules = self._calls(syntax, calls)
        if calls.mode == "required":
            return self._grammar(self._reply("calls"), *rules)
        if answer is not None:
            return self._grammar(f"{self._reply('calls')} | {self._reply('content')}", *self._answer(answer), *rules)
        opening = syntax.begin.strip()
        if not opening or self._starts_special(opening):
            begun = self._reply("TEXT? calls" if opening else "calls")
            return self._grammar(f"{self._reply('content')} | {begun}", *self._content(syntax), *rules)
        # Lazy: what precedes the first opening of a call is text, and what follows it is a call.
        opened = f"opened[lazy]: ANY {json.dumps(opening)}"
        rest = self._written(syntax.begin[syntax.begin.index(opening) + len(opening) :])
        begun = self._reply(f"opened {rest} called")
        return self._grammar(f"{self._reply('content')} | {begun}", opened, *self._content(syntax), *rules)

    def _grammar(self, start: str, *rules: str) -> str:
        thoughts, reasoned = self._format.thoughts, []
        if thoughts is not None:
            end = thoughts.end.strip()
            reasoned = [f"thinking[lazy]: ANY {json.dumps(end)}"]
            if self._starts_special(end):
                reasoned = [f"thinking: ANY {self._written(end)}"]
        return "\n".join([f"start: {start}", *rules, *reasoned, "ANY: /(?s:.*)/"])

    def _reply(self, rest: str) -> str:
        """The alternatives of a reply that is `rest`, the `content` or calls, behind reasoning if there is any."""
        begin = self._written(self._format.content_begin) if rest == "content" else ""
        thoughts = self._format.thoughts
        if thoughts is None:
            return f"{begin} {rest}"
        # Some ends of reasoning are the begin of a content too.
        again = "" if thoughts.end.endswith(self._format.content_begin) else begin
        gap = self._written(thoughts.end[len(thoughts.end.rstrip()) :])
        if thoughts.prompted:
            return f"thinking {gap} {again} {rest}"
        return f"{self._written(thoughts.begin)} thinking {gap} {again} {rest} | {begin} {rest}"

    def _answer(self, answer: AnswerRule) -> list[str]:
        return [f"content: json {self._written(self._format.content_end)}", f"json: {answer.rule}"]

    def _content(self, syntax: CallSyntax) -> list[str]:
        """The rule `content` and the terminal TEXT: text in which no call begins. It never holds special tokens."""
        opening = syntax.begin.strip()
        if self._starts_special(opening):
            text = "ANY"
        elif opening:
            pattern = re.escape(opening).replace("/", r"\/")
            text = f"ANY & ~/(?s:.*){pattern}(?s:.*)/"
        else:
            text = r"/\s*([^{\s](?s:.*))?/"
        return [f"content: TEXT {self._written(self._format.content_end)}", f"TEXT: {text}"]

    def _calls(self, syntax: CallSyntax, calls: Calls) -> list[str]:
        """The rules `calls`, which has at least one call, and `called`, which is what follows its opening."""
        bodies, rules = [], []
        # Mistral's models write ids of their own, and only such.
        identity = r'", \"id\": \"" /[a-zA-Z0-9]{9}/ "\""' if "id" in syntax.keys else ""
        for index, (name, arguments) in enumerate(calls.functions.items()):
            head = f'{{"{syntax.name_key}": {json.dumps(name, ensure_ascii=False)}, "{syntax.arguments_key}": '
            bodies.append(f"call_{index}")
            rules.append(f'call_{index}: {json.dumps(head)} arguments_{index} {identity} "}}"')
            rules.append(f"arguments_{index}: {arguments.rule}")
        more = ""
        if calls.parallel and syntax.between is not None:
            more = f"({self._written(syntax.between)} call)*"
        return [
            f"calls: {self._written(syntax.begin)} called",
            f"called: call {more} {self._written(syntax.end)}",
            f"call: {' | '.join(bodies)}",
            *rules,
        ]

    def _written(self, text: str) -> str:
        """`text` in a grammar, in which a special token is not text."""
        pieces = self._split.split(text) if self._split else [text]
        return " ".join(
            f"<[{self._special[piece]}]>" if piece in self._special else json.dumps(piece) for piece in pieces if piece
        )

    def _starts_special(self, text: str) -> bool:
        return any(text.startswith(special) for special in self._special)


class Grammars:
    """Compiles grammars for one tokenizer, which `words` makes at first use. Several threads may use it."""

    def __init__(self, words: Callable[[], LLTokenizer]) -> None:
        self._make_words = words
        self._words: LLTokenizer | None = None
        self._compiled: OrderedDict[str, LLMatcher] = OrderedDict()
        self._lock = threading.Lock()

    def matcher(self, grammar: str, rules: Iterable[AnswerRule]) -> LLMatcher:
        """A matcher of `grammar`, into which `rules` were written. Takes milliseconds, and a second at first use.

        Raises `RequestRefusedError` if it cannot be compiled or is too large; the message names the rules at fault.
        """
        rules = tuple(rules)
        if len(grammar) > _LONGEST:
            named = ", ".join(each.field for each in rules)
            raise RequestRefusedError(
                400,
                "invalid_grammar",
                f"{named}: {len(grammar)} characters of schemas are too large, {_LONGEST} are the most a reply can be "
                "held to; simplify the schema",
            )
        with self._lock:
            if self._words is None:
                self._words = self._make_words()
            compiled = self._compiled.get(grammar)
            if compiled is None:
                compiled = self._compile(self._words, grammar)
                if compiled.is_error():
                    raise RequestRefusedError(400, "invalid_grammar", self._faults(self._words, compiled, rules))
                self._compiled[grammar] = compiled
                if len(self._compiled) > _KEPT:
                    self._compiled.popitem(last=False)
            self._compiled.move_to_end(grammar)
            return compiled.deep_copy()

    def _faults(self, words: LLTokenizer, compiled: LLMatcher, rules: Iterable[AnswerRule]) -> str:
        alone = {each.field: self._compile(words, f"start: json\njson: {each.rule}") for each in rules}
        faults = {field: matcher for field, matcher in alone.items() if matcher.is_error()}
        named = faults or {" and ".join(alone): compiled}
        told = "; ".join(f"{field}: {_reason(matcher)}" for field, matcher in named.items())
        return f"{told}; a reply cannot be held to it: simplify the schema"

    @staticmethod
    def _compile(words: LLTokenizer, grammar: str) -> LLMatcher:
        limits = Limits(max_grammar_size=_LARGEST)
        return LLMatcher(words, LLMatcher.grammar_from_lark(grammar), log_level=0, limits=limits)


def _reason(matcher: LLMatcher) -> str:
    # Behind the reason the library shows the grammar.
    told = re.split(r"\n +\d+ \||\n<state>", matcher.get_error())[0]
    return " ".join(re.sub(r"^at \d+\(\d+\): (failed to compile JSON schema: )?", "", told).split())[:300]
