"""Names and places by Microsoft Presidio, a language model's judgement; only with the extra `presidio`."""

from collections.abc import Iterator

from streams.errors import ConfigurationError
from streams.redaction.spans import Span

ENTITIES = ("PERSON", "LOCATION")


class Presidio:
    """Loads spaCy's English model once, which takes seconds and some 100 MB; a text then takes milliseconds."""

    def __init__(self) -> None:
        try:
            from presidio_analyzer import AnalyzerEngine  # type: ignore[import-not-found,unused-ignore]  # an extra
        except ImportError as error:
            raise ConfigurationError(
                "redaction.presidio is on and Presidio is not installed: pip install 'ratchetd[presidio]',"
                " or set RATCHET_REDACTION__PRESIDIO=false"
            ) from error
        self._analyzer = AnalyzerEngine()

    def find(self, text: str) -> Iterator[Span]:
        for result in self._analyzer.analyze(text=text, language="en", entities=list(ENTITIES)):
            yield Span(result.start, result.end, result.entity_type.lower(), text[result.start : result.end])
