"""Harmless lines, and lines with a secret, on which the tests and the benchmark measure redaction.

Most lines are written by hand, in `harmless.txt` and `secret.txt`; tables of numbers are drawn here from a fixed seed.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from streams.redaction.redactor import Redactor

_FOLDER = Path(__file__).parent
_SEED = 20261121
_ROWS = 100


@dataclass(frozen=True, slots=True)
class Line:
    """A text of a kind; `secrets` are the stretches of it that must not be stored, none where it is harmless."""

    kind: str
    text: str
    secrets: tuple[str, ...] = ()


def harmless() -> list[Line]:
    """The lines of `harmless.txt`, and 500 rows of numbers."""
    return [Line(kind, text) for kind, text in _read("harmless.txt")] + list(_tables())


def secret() -> list[Line]:
    """The lines of `secret.txt`. Where nothing is marked, the last word of digits, or the whole line, is the secret."""
    lines = []
    for kind, text in _read("secret.txt"):
        secrets = tuple(part.partition("⟧")[0] for part in text.split("⟦")[1:])
        plain = text.replace("⟦", "").replace("⟧", "")
        lines.append(Line(kind, plain, secrets or (plain.removeprefix("card"),)))
    return lines


def is_redacted(line: Line, redactor: Redactor) -> bool:
    """Return whether every secret of the line is gone, or anything at all when it has none."""
    text, counts = redactor.redact_text(line.text, "corpus")
    return bool(counts) and all(part not in text for part in line.secrets)


def _read(name: str) -> Iterator[tuple[str, str]]:
    kind = ""
    for line in (_FOLDER / name).read_text(encoding="utf-8").split("\n"):
        if line.startswith("## "):
            kind = line.removeprefix("## ")
        elif kind and line.strip():
            yield kind, line.replace("¦", "").replace("⏎", "\n")


def _tables() -> Iterator[Line]:
    draw = random.Random(_SEED)
    for _ in range(_ROWS):
        yield Line("drawn: twenty numbers below 10", " ".join(str(draw.randrange(10)) for _ in range(20)))
        yield Line("drawn: twenty numbers below 100", " ".join(str(draw.randrange(100)) for _ in range(20)))
        yield Line("drawn: twelve numbers below 10000", " ".join(str(draw.randrange(10_000)) for _ in range(12)))
        yield Line("drawn: csv of ten numbers below 1000", ",".join(str(draw.randrange(1000)) for _ in range(10)))
        yield Line("drawn: columns of integers", "  ".join(f"{draw.randrange(100_000):>5}" for _ in range(8)))
