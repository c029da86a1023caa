"""Payment cards: digits as a card bears them, within the range of a network, with Luhn's check digit.

Luhn's digit alone fits one number in ten, and a row of a table holds many; the grouping tells a card from a row. Cards
are printed 4-4-4-4, 4-6-5 (American Express), 4-6-4 (Diners Club) or 4-4-4-4-3, and typed so or without separators.
"""

import re

from streams.redaction.settings import Kind
from streams.redaction.spans import Span

_CARD = re.compile(
    r"(?<![0-9])[0-9]{4}(?P<separator>[ ]{1,2}|[ ]?[-./_+·\t][ ]?)(?:"
    r"[0-9]{4}(?P=separator)[0-9]{4}(?P=separator)(?:[0-9]{4}(?:(?P=separator)[0-9]{3})?|[0-9]{2,3})"
    r"|[0-9]{6}(?P=separator)[0-9]{4,5})(?![0-9])"
    r"|(?<![0-9])[0-9]{13,19}(?![0-9])"
)
_NETWORKS = re.compile(
    r"4(?:[0-9]{12}|[0-9]{15}|[0-9]{18})"  # Visa
    r"|5[0-8][0-9]{14}|(?:222[1-9]|22[3-9][0-9]|2[3-6][0-9]{2}|27[01][0-9]|2720)[0-9]{12}"  # Mastercard, Maestro, Elo
    r"|3[47][0-9]{13}"  # American Express
    r"|3(?:0[0-5]|09|[689][0-9])[0-9]{11}"  # Diners Club
    r"|35(?:2[89]|[3-8][0-9])[0-9]{12}"  # JCB
    r"|6(?:011|4[4-9][0-9]|5[0-9]{2})[0-9]{12}(?:[0-9]{3})?"  # Discover
    r"|6(?:2[0-9]{2}|30[0-9]|33[0-9]|7[0-9]{2})[0-9]{12,15}|60[0-9]{14}"  # UnionPay, Maestro; RuPay and Hipercard
    r"|220[0-4][0-9]{12}|8[12][0-9]{14}|9792[0-9]{12}"  # Mir, RuPay, Troy
)
_NAMED = re.compile(r"card|visa|amex|american express|maestro|discover|diners|kredit|\bpan\b|\bcc\b", re.IGNORECASE)
ENOUGH_DIGITS = re.compile(r"(?:[^0-9]*+[0-9]){13}")
_NAME_WITHIN = 32
_GROUP = re.compile(r"[0-9]+")
_WORD_BEFORE = re.compile(r"(?<![^\W_])[^\W\d_]{2,24}\Z")
_WORD_BEHIND = re.compile(r"[^\W\d_]{3}|[^\W\d_]{2}(?![^\W_])")
_YEAR = re.compile(r"20[2-4][0-9]")
# Other numbers that may stand around cards: a date, an expiry, a code. A table has more.
_MOST_OTHERS = 8


def cards(text: str, start: int, end: int) -> list[Span]:
    """The cards within `text[start:end]`, a run of digits and separators that neither side continues."""
    found: list[tuple[Span, str]] = []
    at = start
    while match := _CARD.search(text, at, end):
        at = match.start() + 1
        if span := _card(text, match):
            found.append((span, match["separator"] or ""))
            at = span.end
    if not any(separator for _, separator in found):
        return [span for span, _ in found]
    others = len(_GROUP.findall(text, start, end)) - sum(len(_GROUP.findall(text, *span[:2])) for span, _ in found)
    begins = {span.start for span, _ in found}
    ends = {span.end for span, _ in found}
    return [
        span
        for span, separator in found
        if not separator
        or _NAMED.search(text, max(0, span.start - _NAME_WITHIN), span.start)
        or (others <= _MOST_OTHERS and not _in_a_row(text, span, separator, begins, ends))
    ]


def _card(text: str, match: re.Match[str]) -> Span | None:
    start, end = match.span()
    number = "".join(_GROUP.findall(match[0]))
    if match["separator"] and len(number) == 19 and not _is_issued(number):
        # Three digits behind a card of sixteen are its security code.
        number, end = number[:16], end - 3 - len(match["separator"])
    if not _is_issued(number) or not _stands_alone(text, start, end, bool(match["separator"])):
        return None
    return Span(start, end, Kind.CARD, number)


def _is_issued(number: str) -> bool:
    return _NETWORKS.fullmatch(number) is not None and luhn(number)


def _stands_alone(text: str, start: int, end: int, grouped: bool) -> bool:
    """Return whether these digits are not part of a hash, an identifier, or a number with a fraction.

    A word may stick to them, as in `card4111…`: two letters or more with no digit before them.
    """
    before, behind = text[max(0, start - 2) : start], text[end : end + 2]
    if not grouped and ((before[-1:] == "." and before[:1].isdigit()) or (behind[:1] == "." and behind[1:].isdigit())):
        return False
    if before[-1:].isalnum() and not _WORD_BEFORE.search(text, max(0, start - 25), start):
        return False
    return not behind[:1].isalnum() or _WORD_BEHIND.match(text, end) is not None


def _in_a_row(text: str, span: Span, separator: str, begins: set[int], ends: set[int]) -> bool:
    """Return whether a number of four digits, neither a year nor of another card, stands beside in the same row."""
    left, right = span.start - len(separator), span.end + len(separator)
    if left not in ends and text.endswith(separator, 0, span.start) and text[max(0, left - 4) : left].isdigit():
        alone = left < 5 or not text[left - 5].isdigit()
        if left >= 4 and alone and not _YEAR.fullmatch(text, left - 4, left):
            return True
    if right in begins or not text.startswith(separator, span.end):
        return False
    group = _GROUP.match(text, right)
    return group is not None and len(group[0]) == 4 and not _YEAR.fullmatch(group[0])


def luhn(number: str) -> bool:
    """Return whether the last digit is the check digit of ISO/IEC 7812-1, annex B; one digit repeated does not count.

    >>> luhn("4111111111111111"), luhn("4111111111111112")
    (True, False)
    """
    digits = [int(digit) for digit in reversed(number)]
    total = sum(digits[::2]) + sum(sum(divmod(2 * digit, 10)) for digit in digits[1::2])
    return total % 10 == 0 and len(set(number)) > 1
