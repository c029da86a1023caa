"""Signs that somebody speaks to the model through the data: such a session is stored and never learned from."""

import re
from collections.abc import Iterator

from streams.redaction.unescape import unescape

# Each pattern is looked for only where its cue occurs, for a search costs a hundred times a comparison.
_SIGNS: tuple[tuple[str, re.Pattern[str]], ...] = (
    (
        "instructions",
        re.compile(
            r"\b(ignore|disregard|forget|override)\b.{0,40}\b(previous|prior|above|earlier|all|your|system)\b"
            r".{0,40}\binstructions\b",
            re.IGNORECASE | re.DOTALL,
        ),
    ),
    ("system prompt", re.compile(r"\b(reveal|print|repeat|show|leak)\b.{0,40}\bsystem prompt\b", re.I | re.DOTALL)),
    ("you are now", re.compile(r"\byou are now\b.{0,60}\b(dan|unrestricted|jailbroken|developer mode|admin)\b", re.I)),
    ("developer mode", re.compile(r"\benable\b.{0,20}\bdeveloper mode\b", re.I)),
    ("<|im_start|>", re.compile(r"<\|im_start\|>", re.I)),
    ("<|im_end|>", re.compile(r"<\|im_end\|>", re.I)),
    ("[/inst]", re.compile(r"\[/inst\]", re.I)),
    ("<<sys>>", re.compile(r"<<sys>>", re.I)),
    ("<|eot_id|>", re.compile(r"<\|eot_id\|>", re.I)),
)
_HIDES_A_CUE = re.compile(r"\\[ux/]")
# JSON within JSON within JSON.
_LAYERS = 3


def may_hold(text: str) -> bool:
    """Return whether a sign may be in the text, as it is written or once its escapes are undone.

    One that is in a text is in every longer text that contains it.
    """
    lowered = text.lower()
    return any(cue in lowered for cue, _ in _SIGNS) or ("\\" in text and _HIDES_A_CUE.search(text) is not None)


def injection_sign(text: str) -> str | None:
    """The cue of the first sign found in `text`, or None. A miss proves nothing: paraphrases pass.

    JSON, whole or cut off, is looked at as it is written and as it is read.
    """
    for reading in _readings(text):
        lowered = reading.lower()
        for cue, pattern in _SIGNS:
            if cue in lowered and pattern.search(reading):
                return cue
    return None


def _readings(text: str) -> Iterator[str]:
    """The text, and then without its escapes."""
    yield text
    for _ in range(_LAYERS):
        # Undoing escapes costs the most by far, and those of white space and quotes hide no cue.
        if "\\" not in text or not may_hold(text):
            return
        plain = unescape(text)
        if plain is None:
            return
        text = plain.text
        yield text
