"""The texts and the JSON of an episode without secrets and personal data. `streams.redaction.redactor` walks events."""

import json
import re
import sys
from collections import Counter, OrderedDict
from collections.abc import Mapping, Sequence
from itertools import takewhile
from typing import Any, NoReturn, TypeAlias

from ratchet_client.errors import ConfigurationError
from streams.errors import UnjudgeableError
from streams.redaction.finder import Finder
from streams.redaction.json_tokens import tokens
from streams.redaction.opaque import OpaqueRuns
from streams.redaction.placeholders import Placeholders
from streams.redaction.secret_keys import names_a_secret
from streams.redaction.settings import Kind, RedactionSettings
from streams.redaction.spans import Span, subtract

Counts: TypeAlias = Counter[str]

# A value that was taken out may bring two others together that now form a third; few texts need a third look.
_MAX_ROUNDS = 8
_MAX_DEPTH = 64
_IDENTIFIER = re.compile(r"[A-Za-z0-9_.:|-]{0,128}")
_DATA_URL = re.compile(r"data:[\w/+.;=-]{0,128},")
# The same chats come again with every step, so JSON of so many characters together is known to hold nothing.
_REMEMBERED = 16 * 1024 * 1024
OPAQUE = "opaque"


class TextRedactor:
    """Replaces what its settings name. One thread at a time may use it.

    `counts` of a call is told how often each kind or rule was replaced; all calls raise `UnjudgeableError` for what
    cannot be redacted. `key` makes the placeholders. Raises `ConfigurationError` when it is empty, or Presidio is
    wanted and missing.
    """

    def __init__(self, settings: RedactionSettings, key: bytes) -> None:
        if not key:
            raise ConfigurationError("redaction needs a key for its placeholders and the one given is empty")
        self._settings = settings
        self._finder = Finder(settings)
        self._opaque = OpaqueRuns(settings.max_opaque)
        self._placeholders = Placeholders(key, (*self._finder.names, OPAQUE))
        self._clean: OrderedDict[tuple[str, bool], None] = OrderedDict()
        self._characters = 0
        self._replaced: list[tuple[str, Span]] | None = None

    def text(self, text: str, episode: str, counts: Counts, context: str = "") -> str:
        """A text; the same object where nothing was found. `context` is what stands before it."""
        if len(text) > self._settings.max_text:
            self._refuse_long(text)
        if not text.isascii():
            _refuse_surrogates(text)
        for _ in range(_MAX_ROUNDS):
            whole = context + text
            spans = self._finder.find(whole)
            if not spans:
                return text
            spans = tuple(subtract(whole, spans, self._placeholders.within(whole)))
            own = [
                Span(max(0, span.start - len(context)), span.end - len(context), span.name, span.value)
                for span in spans
                if span.end > len(context)
            ]
            if not own:
                return text
            text = self._replace(text, own, episode, counts)
        raise UnjudgeableError(f"a text still held something after {_MAX_ROUNDS} rounds")

    def structured(self, text: str, episode: str, counts: Counts) -> str:
        """A text that may be JSON: then each value is redacted under its key, and the rest stays byte for byte."""
        if len(text) > self._settings.max_text:
            self._refuse_long(text)
        if text.lstrip()[:1] not in ("{", "["):
            return self.text(text, episode, counts)
        if (text, False) in self._clean:
            return text
        try:
            json.loads(text)
        except (ValueError, RecursionError):
            return self.text(text, episode, counts)
        return self._json_text(text, episode, counts)

    def json(
        self, value: Mapping[str, Any] | Sequence[Any], episode: str, counts: Counts, *, references: bool = False
    ) -> Any:
        """JSON values; the same object where nothing was found.

        With `references`, what may hide anything, such as an image, is replaced instead of refused.
        """
        written = json.dumps(value)
        redacted = self._json_text(written, episode, counts, references=references, deepest=_MAX_DEPTH)
        return value if redacted is written else json.loads(redacted)

    def identifier(self, text: str, episode: str, counts: Counts) -> str:
        """A name that other places repeat: it stays unless it has the characters of something else."""
        if _IDENTIFIER.fullmatch(text):
            return text
        return self.text(self._with_references(text, episode, counts), episode, counts)

    def placeholders(self, text: str) -> tuple[str, ...]:
        """The placeholders that the text holds, whether they stand for something or only look like it."""
        return tuple(text[start:end] for start, end in self._placeholders.within(text))

    def raw_values(self, text: str, episode: str) -> Mapping[str, tuple[str, ...]]:
        """The values that would be replaced in a text, by their placeholders, be it taken as JSON or as it is.

        Of each value, as it is written and then as it is read.
        """
        self._replaced = []
        try:
            self.structured(text, episode, Counter())
            self.text(text, episode, Counter())
            found: dict[str, tuple[str, ...]] = {}
            for written, span in self._replaced:
                placeholder = self._placeholders.make(episode, span.name, span.value)
                found[placeholder] = (*found.get(placeholder, ()), written, span.value)
            return found
        finally:
            self._replaced = None

    def _json_text(
        self, text: str, episode: str, counts: Counts, *, references: bool = False, deepest: int = sys.maxsize
    ) -> str:
        """Valid JSON, of which only the tokens change that held something."""
        if (text, references) in self._clean:
            self._clean.move_to_end((text, references))
            return text
        redacted = self._by_members(text, episode, counts, references, deepest)
        for _ in range(_MAX_ROUNDS):
            # Taken as a text, too: `{"name": "PASSWORD", "value": "…"}` says it in two members.
            spans = subtract(redacted, self._finder.find(redacted), self._placeholders.within(redacted))
            if not spans or (again := self._within_values(redacted, spans, episode, counts)) == redacted:
                break
            redacted = again
        else:
            raise UnjudgeableError(f"JSON still held something after {_MAX_ROUNDS} rounds")
        if redacted == text:
            self._remember((text, references))
            return text
        return redacted

    def _by_members(self, text: str, episode: str, counts: Counts, references: bool, deepest: int) -> str:
        pieces: list[str] = []
        copied = 0
        names: dict[tuple[int, str], str] = {}
        for token in tokens(text, deepest):
            written = text[token.start : token.end]
            said = json.loads(written) if written[0] == '"' else written
            if token.is_name:
                new = self.text(said, episode, counts)
                if names.setdefault((token.container, new), said) != said:
                    raise UnjudgeableError("two keys of JSON become the same when they are redacted")
            else:
                known = self._with_references(said, episode, counts) if references else said
                new = self._member(known, episode, counts, json.loads(token.under))
            if new != said:
                pieces += (text[copied : token.start], json.dumps(new, ensure_ascii=written.isascii()))
                copied = token.end
        return "".join((*pieces, text[copied:]))

    def _within_values(self, text: str, spans: Sequence[Span], episode: str, counts: Counts) -> str:
        """The JSON with placeholders for what of the spans lies within its values."""
        pieces: list[str] = []
        copied = 0
        left = list(reversed(spans))
        for token in tokens(text):
            while left and left[-1].end <= token.start:
                left.pop()
            quote = text[token.start] == '"'
            start, end = (token.start + 1, token.end - 1) if quote else (token.start, token.end)
            found = takewhile(lambda span, end=end: span.start < end, reversed(left))  # type: ignore[misc]
            within = [_clipped(text, span, start, end) for span in found if span.end > start]
            if token.is_name or not within:
                continue
            value = text[start:end]
            if quote:
                new = self._replace(value, within, episode, counts)
            else:
                whole = Span(0, len(value), within[0].name, value)
                new = json.dumps(self._replace(value, [whole], episode, counts))
            pieces += (text[copied:start], new)
            copied = end
        return "".join((*pieces, text[copied:]))

    def _remember(self, clean: tuple[str, bool]) -> None:
        self._clean[clean] = None
        self._characters += len(clean[0])
        while self._characters > _REMEMBERED:
            (forgotten, _), _ = self._clean.popitem(last=False)
            self._characters -= len(forgotten)

    def _member(self, text: str, episode: str, counts: Counts, key: str) -> str:
        """The value of a key: the key says what it is where its form does not."""
        if text and Kind.PASSWORD in self._settings.kinds and names_a_secret(key):
            whole = [Span(0, len(text), Kind.PASSWORD, text)]
            return self._replace(text, subtract(text, whole, self._placeholders.within(text)), episode, counts)
        return self.text(text, episode, counts, context=f"{key}: " if key else "")

    def _with_references(self, text: str, episode: str, counts: Counts) -> str:
        """The text with placeholders for the contents of files that stand in it."""
        url = _DATA_URL.match(text)
        if url is not None and url.end() < len(text):
            spans = [Span(url.end(), len(text), OPAQUE, text[url.end() :])]
        else:
            spans = [Span(start, end, OPAQUE, text[start:end]) for start, end in self._opaque.find(text)]
        spans = subtract(text, spans, self._placeholders.within(text))
        return self._replace(text, spans, episode, counts) if spans else text

    def _replace(self, text: str, spans: Sequence[Span], episode: str, counts: Counts) -> str:
        pieces: list[str] = []
        copied = 0
        for span in spans:
            pieces += (text[copied : span.start], self._placeholders.make(episode, span.name, span.value))
            if self._replaced is not None:
                self._replaced.append((text[span.start : span.end], span))
            copied = span.end
            counts[str(span.name)] += 1
        return "".join((*pieces, text[copied:]))

    def _refuse_long(self, text: str) -> NoReturn:
        raise UnjudgeableError(
            f"a text of {len(text)} characters is longer than redaction.max_text ({self._settings.max_text})"
        )


def _refuse_surrogates(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise UnjudgeableError("a text holds half of a surrogate pair and is not Unicode") from error


def _clipped(text: str, span: Span, start: int, end: int) -> Span:
    """Return what of the span lies in `text[start:end]`, by its places there."""
    first, last = max(span.start, start), min(span.end, end)
    value = span.value if (first, last) == (span.start, span.end) else text[first:last]
    return Span(first - start, last - start, span.name, value)
