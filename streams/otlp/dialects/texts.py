"""Texts of telemetry: what stands in the place of a hidden one, and JSON that is whole or cut off."""

import re

from pydantic import JsonValue
from pydantic_core import from_json

# What instrumentations and collectors write in the place of a text that they hide. The whole text is this.
_MASK = re.compile(
    r"""(?ix) (?: [\[<({]{1,3} | [_*\#$%]{1,3} ) \s*
    (?: (?:content|text|data|message|prompt|input|output|value|pii|phi|secret|sensitive) [\s_-] ){0,3}
    (?: (?: redacted | filtered | masked | scrubbed | hidden | omitted | withheld | (?<=[\s_-]) removed
          | elided | obfuscated | anonymi[sz]ed | suppressed ) (?: [\s:_,-] [^\n\])>}]{0,80} )?
      | (?: removed | excluded | stripped | not[\s_-]captured )
        (?: (?: [:_,-] | \s+ (?:by|for|because|due|per|as)\b ) [^\n\])>}]{0,80} )? )
    \s* /? (?: [\])>}]{1,3} | [_*\#$%]{1,3} )
    | \*{3,} | [█•]{3} [█•\s]* | (?-i:REDACTED|Redacted) (?: _ \w{1,80} )?"""
)


def is_mask(text: str) -> bool:
    """Return whether the text stands in the place of one that was hidden.

    >>> is_mask("__REDACTED__"), is_mask("[redacted by policy]"), is_mask("My name is [REDACTED].")
    (True, True, False)
    """
    text = text.strip()
    return len(text) <= 128 and _MASK.fullmatch(text) is not None


def decoded(value: JsonValue) -> JsonValue:
    """The value of a JSON text; anything else, and a text that is not JSON, unchanged."""
    if not isinstance(value, str):
        return value
    try:
        parsed: JsonValue = from_json(value, allow_inf_nan=False)
    except ValueError:
        return value
    return parsed


def is_cut(text: str) -> bool:
    """Return whether the text is the beginning of a JSON object or list, and not the whole of one.

    >>> is_cut('{"room": "kit'), is_cut('{"room": "kitchen"}'), is_cut("{room}")
    (True, False, False)
    """
    if not text.lstrip().startswith(("{", "[")):
        return False
    try:
        from_json(text)
    except ValueError:
        try:
            from_json(text, allow_partial="trailing-strings")
        except ValueError:
            return False
        return True
    return False
