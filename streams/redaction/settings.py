"""Settings of redaction; `daemon/config.py` composes them into the whole configuration."""

from enum import StrEnum
from typing import Annotated, TypeAlias

import regex  # type: ignore[import-untyped]  # ships no types
from pydantic import AfterValidator, Field, model_validator

from ratchet_client.settings import FrozenModel


class Kind(StrEnum):
    """The kinds of values that are detected by default. The name in capitals is that of its placeholders."""

    PRIVATE_KEY = "private_key"
    JWT = "jwt"
    API_KEY = "api_key"
    PASSWORD = "password"
    EMAIL = "email"
    CARD = "card"
    IBAN = "iban"
    SSN = "ssn"
    PHONE = "phone"
    IP = "ip"
    MAC = "mac"
    HIGH_ENTROPY = "high_entropy"


def _compiles(pattern: str) -> str:
    try:
        compiled = regex.compile(pattern)
    except regex.error as error:
        raise ValueError(f"{pattern!r} is not a regular expression: {error}") from error
    if compiled.fullmatch(""):
        raise ValueError(f"{pattern!r} matches the empty text; let it ask for at least one character")
    return pattern


Pattern: TypeAlias = Annotated[str, AfterValidator(_compiles)]


class Rule(FrozenModel):
    """Something else to replace: every match of `pattern`, or its first group where it has one."""

    name: str = Field(
        pattern=r"^[a-z][a-z0-9_]{0,30}$", description="Counted under this name; in capitals that of its placeholders."
    )
    pattern: Pattern = Field(description="A regular expression in the syntax of the package regex.")


class RedactionSettings(FrozenModel):
    """Settings of redaction."""

    enabled: bool = Field(default=True, description="Off: events are stored as they came.")
    kinds: frozenset[Kind] = Field(default=frozenset(Kind), description="What is looked for.")
    rules: tuple[Rule, ...] = Field(default=(), description="More to look for, after all kinds.")
    keep: frozenset[str] = Field(default=frozenset(), description="Values that are left alone, letter for letter.")
    keep_patterns: tuple[Pattern, ...] = Field(
        default=(), description="Values that are left alone: those that one of these matches from end to end."
    )
    simulators: frozenset[str] = Field(
        default=frozenset(),
        description="Environments that hold no personal data: the steps of their episodes are not redacted.",
    )
    phone_regions: tuple[Annotated[str, Field(pattern="^[A-Z]{2}$")], ...] = Field(
        default=("US",), description="Countries (ISO 3166) whose national formats count; +49 … is known anywhere."
    )
    presidio: bool = Field(default=False, description="Also replace names and places; needs the extra `presidio`.")
    presidio_model: str = Field(default="en_core_web_lg", description="The spaCy model that Presidio reads with.")
    max_text: int = Field(
        default=256 * 1024, ge=1, description="Characters of one text; an event with a longer one is refused."
    )
    max_opaque: int = Field(
        default=512, ge=64, description="Characters of one run of base64 or hex; an event with a longer one is refused."
    )
    rule_timeout_s: float = Field(
        default=0.5,
        gt=0,
        description="Longest time for one of `rules` or `keep_patterns` on one text; then the event is refused.",
    )

    @model_validator(mode="after")
    def _names_are_unique(self) -> "RedactionSettings":
        names = [rule.name for rule in self.rules]
        taken = {name for name in names if names.count(name) > 1 or name in set(Kind)}
        if taken:
            raise ValueError(f"rules need names of their own: {', '.join(sorted(taken))}")
        return self
