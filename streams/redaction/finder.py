"""Finds the values to be removed from a text, by all detectors.

Knows no episodes and no placeholders: the redactor does.
"""

from collections import OrderedDict
from collections.abc import Iterator

import regex  # type: ignore[import-untyped]  # ships no types

from streams.errors import UnjudgeableError
from streams.redaction import addresses, assignments, personal, tokens
from streams.redaction.opaque import OpaqueRuns
from streams.redaction.presidio import ENTITIES, Presidio
from streams.redaction.settings import Kind, RedactionSettings
from streams.redaction.spans import Span, merge, subtract
from streams.redaction.unescape import unescape

# The same chats come again with every step, so what was found is kept for texts of so many characters together.
_REMEMBERED = 16 * 1024 * 1024
# JSON in JSON is undone at once; this many kinds of escapes may lie in each other, as in a URL in JSON.
_LAYERS = 4


class Finder:
    """Looks for kinds, rules and, where wanted, Presidio's entities. One thread at a time may use it."""

    def __init__(self, settings: RedactionSettings) -> None:
        self._settings = settings
        self._opaque = OpaqueRuns(settings.max_opaque)
        self._rules = [(rule.name, regex.compile(rule.pattern)) for rule in settings.rules]
        self._keep = [regex.compile(pattern) for pattern in settings.keep_patterns]
        self._presidio = Presidio(settings.presidio_model) if settings.presidio else None
        entities = [entity.lower() for entity in ENTITIES] if settings.presidio else []
        # In the order of precedence: where two overlap, the first names the placeholder.
        self.names = (*Kind, *(rule.name for rule in settings.rules), *entities)
        self._rank = {name: rank for rank, name in enumerate(self.names)}
        self._remembered: OrderedDict[str, tuple[Span, ...]] = OrderedDict()
        self._characters = 0

    def find(self, text: str) -> tuple[Span, ...]:
        """The spans to be removed, in the order of the text and without overlaps. Raises `UnjudgeableError`."""
        found = self._remembered.get(text)
        if found is not None:
            self._remembered.move_to_end(text)
            return found
        found = tuple(self._look(text))
        self._remembered[text] = found
        self._characters += len(text)
        while self._characters > _REMEMBERED:
            forgotten, _ = self._remembered.popitem(last=False)
            self._characters -= len(forgotten)
        return found

    def _look(self, text: str, layer: int = 0) -> list[Span]:
        plain = unescape(text) if layer < _LAYERS else None
        if plain is None:
            return self._look_at(text)
        spans = []
        for span in self._look(plain.text, layer + 1):
            start, end = plain.origin(span.start, span.end)
            spans.append(Span(start, end, span.name, span.value))
        # As it is written, too: `a%20b` after `password=` is one value. An escape that is cut through would be broken.
        for span in self._look_at(text):
            start, end = plain.snap(span.start, span.end)
            if start < end:
                spans.append(Span(start, end, span.name, span.value))
        spans.sort(key=lambda span: self._rank[span.name])
        return merge(text, spans)

    def _look_at(self, text: str) -> list[Span]:
        runs = tokens.runs(text)
        spans = list(self._everything(text, runs))
        for start, end, said in tokens.hidden(runs):
            inner = list(self._everything(said, tokens.runs(said)))
            spans += [Span(start, end, inner[0].name, text[start:end])] if inner else []
        spans = [span for span in spans if not self._is_kept(text[span.start : span.end])]
        spans.sort(key=lambda span: self._rank[span.name])
        found = merge(text, spans)
        self._refuse_opaque(text, found)
        return found

    def _everything(self, text: str, runs: list["regex.Match[str]"]) -> Iterator[Span]:
        kinds = self._settings.kinds
        if Kind.PRIVATE_KEY in kinds:
            yield from tokens.private_keys(text)
        if Kind.JWT in kinds:
            yield from tokens.jwts(text)
        if Kind.API_KEY in kinds:
            yield from tokens.api_keys(text, runs)
        if Kind.PASSWORD in kinds:
            yield from assignments.passwords(text)
        if Kind.EMAIL in kinds:
            yield from personal.emails(text)
        if Kind.IBAN in kinds:
            yield from personal.ibans(text)
        yield from personal.numbers(text, self._settings.phone_regions, kinds)
        colons = addresses.in_colons(text)
        if Kind.IP in kinds:
            yield from addresses.ips(text, colons)
        if Kind.MAC in kinds:
            yield from addresses.macs(text, colons)
        if Kind.HIGH_ENTROPY in kinds:
            yield from tokens.random_text(runs)
        for name, pattern in self._rules:
            yield from self._matches(name, pattern, text)
        if self._presidio is not None:
            yield from self._presidio.find(text)

    def _matches(self, name: str, pattern: "regex.Pattern[str]", text: str) -> Iterator[Span]:
        group = min(pattern.groups, 1)
        try:
            for match in pattern.finditer(text, timeout=self._settings.rule_timeout_s):
                if match[group]:
                    yield Span(match.start(group), match.end(group), name, match[group])
        except TimeoutError as error:
            raise self._too_slow(f"the rule {name}", len(text)) from error

    def _is_kept(self, value: str) -> bool:
        if value in self._settings.keep:
            return True
        try:
            return any(pattern.fullmatch(value, timeout=self._settings.rule_timeout_s) for pattern in self._keep)
        except TimeoutError as error:
            raise self._too_slow("a pattern of redaction.keep_patterns", len(value)) from error

    def _too_slow(self, what: str, length: int) -> UnjudgeableError:
        return UnjudgeableError(
            f"{what} was not done with {length} characters after {self._settings.rule_timeout_s} s; simplify it"
        )

    def _refuse_opaque(self, text: str, found: list[Span]) -> None:
        # A picture is not a password, though each of its lines is random enough.
        holes = [(span.start, span.end) for span in found if span.name != Kind.HIGH_ENTROPY]
        for start, end in self._opaque.find(text):
            for rest in subtract(text, [Span(start, end, "", "")], holes):
                length = rest.end - rest.start
                if length >= self._settings.max_opaque and not self._is_kept(text[rest.start : rest.end]):
                    raise UnjudgeableError(f"a run of {length} characters of base64 or hex may hide anything")
