"""Signs that somebody speaks to the model through the data: such a session is stored and never learned from."""

import re

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


def injection_sign(text: str) -> str | None:
    """The cue of the first sign found in `text`, or None. A miss proves nothing: paraphrases pass."""
    lowered = text.lower()
    for cue, pattern in _SIGNS:
        if cue in lowered and pattern.search(text):
            return cue
    return None
