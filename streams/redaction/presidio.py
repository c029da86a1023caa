"""Names and places by Microsoft Presidio, a language model's judgement; only with the extra `presidio`."""

from collections.abc import Iterator
from importlib.util import find_spec

from ratchet_client.errors import ConfigurationError
from streams.redaction.spans import Span

ENTITIES = ("PERSON", "LOCATION")


class Presidio:
    """Loads an installed spaCy model once, which takes seconds; a text then takes milliseconds."""

    def __init__(self, model: str) -> None:
        try:
            from presidio_analyzer import AnalyzerEngine  # type: ignore[import-not-found,unused-ignore]  # an extra
            from presidio_analyzer.nlp_engine import (  # type: ignore[import-not-found,unused-ignore]  # an extra
                NlpEngineProvider,
            )
        except ImportError as error:
            raise ConfigurationError(
                "redaction.presidio is on and Presidio is not installed: pip install 'ratchetd[presidio]',"
                " or set RATCHET_REDACTION__PRESIDIO=false"
            ) from error
        if find_spec(model) is None:  # Presidio would fetch it from the internet
            raise ConfigurationError(
                f"redaction.presidio_model is {model!r}, which is not installed: python -m spacy download {model}"
            )
        configuration = {"nlp_engine_name": "spacy", "models": [{"lang_code": "en", "model_name": model}]}
        engine = NlpEngineProvider(nlp_configuration=configuration).create_engine()
        self._analyzer = AnalyzerEngine(nlp_engine=engine, supported_languages=["en"])

    def find(self, text: str) -> Iterator[Span]:
        for result in self._analyzer.analyze(text=text, language="en", entities=list(ENTITIES)):
            yield Span(result.start, result.end, result.entity_type.lower(), text[result.start : result.end])
