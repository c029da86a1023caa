"""Personal data that has a checkable form: e-mail, phone, card, IBAN, SSN, and the addresses of networks and devices.

A cheap scan finds candidates; a check sum, a length, or a library that knows the numbering plans decides. Phone numbers
are `phonenumbers`' to judge, but only where seven digits stand close together: its own search of a text takes fifteen
times as long as everything else here.
"""

import ipaddress
import re
from collections.abc import Iterator
from typing import NamedTuple

import phonenumbers
from phonenumbers import Leniency, PhoneNumberMatcher

from streams.redaction.settings import Kind
from streams.redaction.spans import Span

# No library does this or Luhn's check: python-stdnum is under the LGPL; schwifty needs pycountry, which is too, and
# refuses a number with a right remainder that breaks its country's own rules, so one that is redacted here would pass.
# Lengths of the SWIFT IBAN registry, release 99.
_IBAN_LENGTHS = {
    country: length
    for length, countries in {
        15: "NO", 16: "BE", 18: "DK FI FO GL NL SD FK", 19: "MK SI", 20: "AT BA EE KZ LT LU XK MN", 21: "CH HR LI LV",
        22: "BG BH CR DE GB GE IE ME RS VA", 23: "AE GI IL IQ OM TL SO", 24: "AD CZ ES MD PK RO SA SE SK TN VG",
        25: "PT ST LY", 26: "IS TR", 27: "BI DJ FR GR IT MC MR SM", 28: "AL AZ BY CY DO GT HU LB NI PL SV",
        29: "BR EG PS QA UA", 30: "JO KW MU YE", 31: "MT SC", 32: "LC", 33: "RU",
    }.items()
    for country in countries.split()
}  # fmt: skip

_DIGITS = re.compile(r"[0-9](?:[ ().\-/]{0,3}[0-9]){6,}")
_CARD_RUN = re.compile(r"[0-9](?:[ -]{0,2}[0-9]){12,}")
_GROUP = re.compile(r"[0-9]+")
_SSN = re.compile(r"(?<![\w-])(?!000|666|9)\d{3}([- ])(?!00)\d\d\1(?!0000)\d{4}(?![\w-])")
# The names of placeholders are not words that announce a number.
_SSN_WORD = re.compile(r"(?<!<)(?:ssn|social|tax)", re.IGNORECASE)
_PHONE_WORD = re.compile(
    r"(?<!<)phone|\btel\b|mobile|\bcell|\bfax|\bcall|whats|\bsms|contact|\bdial|text (?:me|us)|msisdn", re.IGNORECASE
)
_US_SHAPE = re.compile(r"(?:\+?1[ .-]?)?(?:\(\d{3}\) ?|\d{3}[ .-])\d{3}[ .-]\d{4}")
_NO_PHONE = re.compile(  # decimal numbers, dates, and addresses of the internet
    r"\d+\.\d+|\d{4}[-/.]\d\d?[-/.]\d\d?(?:\D.*)?|\d\d?[-/.]\d\d?[-/.]\d{4}(?:\D.*)?|(?:\d{1,3}\.){3}\d{1,3}"
)
_UUID = re.compile(r"[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}")
_CARD = re.compile(  # the ranges of Visa, Mastercard, American Express, Diners, JCB, Discover, UnionPay and Maestro
    r"4(?:\d{12}|\d{15}|\d{18})|5\d{15}|2[2-7]\d{14}|3[47]\d{13}|3[0689]\d{12}|35\d{14}|6(?:[02357]\d|4[4-9])\d{13,16}"
)
_CHECK_DIGITS = re.compile(r"[0-9]{2}(?<=[A-Za-z]{2}[0-9]{2})")
_IBAN = re.compile(r"(?<![A-Za-z0-9])[A-Za-z]{2}[0-9]{2}(?:[ -]?[A-Za-z0-9]){11,30}")
_DOMAIN = re.compile(r"@(?:\[[0-9a-fA-F.:]{3,45}\]|[^\W_](?:[\w-]{0,62}\.)+[^\W\d_](?:[\w-]{0,30}[^\W_]))")
_LOCAL = re.compile(r"""(?:[\w!#$%&'*+/=?^`{|}~.-]{1,64}|"[^"\r\n]{1,62}")\Z""")
_IPV4 = re.compile(r"[0-9]{1,3}\.[0-9]{1,3}\.[0-9]{1,3}\.[0-9]{1,3}(?!\w|\.[0-9])")
_VERSION_BEFORE = re.compile(
    r"(?:(?:\bv|ver\.?|version\W{0,3}|release|[=<>!~]=|[~^]|[A-Za-z)][-/]) ?|[\w.])\Z", re.IGNORECASE
)
_IPV6 = re.compile(r"(?<![\w:.])(?:[0-9A-Fa-f]{0,4}:){2,7}(?:[0-9A-Fa-f]{1,4}|(?:\d{1,3}\.){3}\d{1,3})?(?![\w:])")
# A search for one literal character is quick: what these do not find, the patterns of addresses need not look for.
_IN_COLONS = re.compile(r":(?::|[0-9A-Fa-f]{1,4}:[0-9A-Fa-f]{1,4}:)")
_IN_NUMBERS = re.compile(r"\.[0-9]{1,3}\.[0-9]")
_IN_DASHES = re.compile(r"-[0-9A-Fa-f]{2}-")
_IN_DOTS = re.compile(r"\.[0-9A-Fa-f]{4}\.")
_MAC = re.compile(r"(?<![\w:-])[0-9A-Fa-f]{2}(?:([:-])[0-9A-Fa-f]{2})(?:\1[0-9A-Fa-f]{2}){4}(?![\w:-])")
_MAC_DOTTED = re.compile(r"(?<![\w.])[0-9A-Fa-f]{4}\.[0-9A-Fa-f]{4}\.[0-9A-Fa-f]{4}(?!\w|\.\w)")


def emails(text: str) -> Iterator[Span]:
    """Addresses by the shape of their two halves; an address needs a domain with a dot, or one of brackets."""
    if "@" not in text:
        return
    for domain in _DOMAIN.finditer(text):
        begin = max(0, domain.start() - 64)
        if local := _LOCAL.search(text, begin, domain.start()):
            start = local.start() + len(local[0]) - len(local[0].lstrip("./='`{|*?&"))
            if start < domain.start():
                yield Span(start, domain.end(), Kind.EMAIL, text[start : domain.end()].lower())


def numbers(text: str, phone_regions: tuple[str, ...], kinds: frozenset[Kind]) -> Iterator[Span]:
    """Cards, social security numbers and phone numbers: whatever begins with seven digits close together."""
    for candidate in _DIGITS.finditer(text):
        start, end = candidate.span()
        found = list(_cards(text, start, end)) if Kind.CARD in kinds else []
        if Kind.SSN in kinds:
            found += _ssns(text, start, end)
        if Kind.PHONE in kinds and not found:
            found += _phones(text, start, end, phone_regions)
        if found and not ("-" in candidate[0] and _in_uuid(text, start, end)):
            yield from found


def _in_uuid(text: str, start: int, end: int) -> bool:
    around = _UUID.finditer(text, max(0, start - 36), end + 36)
    return any(uuid.start() < end and start < uuid.end() for uuid in around)


def _cards(text: str, start: int, end: int) -> Iterator[Span]:
    for run in _CARD_RUN.finditer(text, start, end):
        groups = list(_GROUP.finditer(text, *run.span()))
        first = 0
        while first < len(groups):
            card = _longest_card([group[0] for group in groups[first : first + 19]])
            last = first + card.groups
            if card.number and _stands_alone(text, groups[first].start(), groups[last - 1].end()):
                yield Span(groups[first].start(), groups[last - 1].end(), Kind.CARD, card.number)
            first = max(last, first + 1)


def _stands_alone(text: str, start: int, end: int) -> bool:
    """Return whether these digits are not part of a name, a hash, or a number with a fraction."""
    before, behind = text[max(0, start - 2) : start], text[end : end + 2]
    fraction = (before[-1:] == "." and before[:1].isdigit()) or (behind[:1] == "." and behind[1:].isdigit())
    return not fraction and not (before[-1:] or " ").isalnum() and not (behind[:1] or " ").isalnum()


class _Card(NamedTuple):
    number: str
    groups: int


def _longest_card(groups: list[str]) -> _Card:
    """The card that begins with the first group of digits, and of how many groups it is; none is of no group."""
    number, card = "", _Card("", 0)
    for count, group in enumerate(groups, start=1):
        number += group
        if len(number) > 19:
            break
        if len(number) >= 13 and _CARD.fullmatch(number) and luhn(number):
            card = _Card(number, count)
    return card


def luhn(number: str) -> bool:
    """Return whether the last digit is the check digit of ISO/IEC 7812-1, annex B; one digit repeated does not count.

    >>> luhn("4111111111111111"), luhn("4111111111111112")
    (True, False)
    """
    digits = [int(digit) for digit in reversed(number)]
    total = sum(digits[::2]) + sum(sum(divmod(2 * digit, 10)) for digit in digits[1::2])
    return total % 10 == 0 and len(set(number)) > 1


def _ssns(text: str, start: int, end: int) -> Iterator[Span]:
    for match in _SSN.finditer(text, start, end):
        if match[1] == "-" or _SSN_WORD.search(text, max(0, start - 30), start):
            yield Span(match.start(), match.end(), Kind.SSN, re.sub(r"\D", "", match[0]))


def _phones(text: str, start: int, end: int, regions: tuple[str, ...]) -> Iterator[Span]:
    while start and text[start - 1] in "+(":
        start -= 1
    if (start and (text[start - 1].isalnum() or text[start - 1] in "_$€£")) or text[end : end + 1].isalpha():
        return
    candidate = text[start:end]
    international = candidate.startswith(("+", "(+", "00"))
    if not international and _NO_PHONE.fullmatch(candidate):
        return
    spoken = _PHONE_WORD.search(text, max(0, start - 24), start) is not None
    if not international and not spoken and candidate.isdigit():
        return
    for number, begin, finish in _matches(candidate, regions, international or spoken):
        yield Span(start + begin, start + finish, Kind.PHONE, number)


def _matches(candidate: str, regions: tuple[str, ...], lenient: bool) -> Iterator[tuple[str, int, int]]:
    if candidate.startswith("00"):
        # The plan of a region knows its own exit code only; most of the world writes two zeros for the plus sign.
        for number, _, _ in _matches("+" + candidate[2:], regions, lenient):
            yield number, 0, len(candidate)
        return
    for region in regions or (None,):
        matches = list(PhoneNumberMatcher(candidate, region, Leniency.POSSIBLE))
        good = [match for match in matches if lenient or _well_written(match.raw_string, match.number)]
        for match in good:
            yield f"{match.number.country_code}{match.number.national_number}", match.start, match.end
        if good:
            return


def _well_written(raw: str, number: phonenumbers.PhoneNumber) -> bool:
    # Numbers of the film exchange 555 and the like are not valid, yet people write them where theirs would stand.
    return _US_SHAPE.fullmatch(raw) is not None or (len(raw) >= 9 and phonenumbers.is_valid_number(number))


def ibans(text: str) -> Iterator[Span]:
    """Account numbers of the countries of the registry whose remainder modulo 97 is 1 (ISO 13616)."""
    for digits in _CHECK_DIGITS.finditer(text):
        match = _IBAN.match(text, digits.start() - 2)
        if match is None:
            continue
        length = _IBAN_LENGTHS.get(match[0][:2].upper())
        places = [place for place in range(*match.span()) if text[place].isalnum()]
        if length is None or len(places) < length:
            continue
        end = places[length - 1] + 1
        value = "".join(text[place] for place in places[:length]).upper()
        if text[end : end + 1].isalnum() or not _mod_97(value):
            continue
        yield Span(match.start(), end, Kind.IBAN, value)


def _mod_97(iban: str) -> bool:
    moved = iban[4:] + iban[:4]
    return int("".join(str(int(character, 36)) for character in moved)) % 97 == 1


def ips(text: str) -> Iterator[Span]:
    """Addresses of both versions, but for loopback and unspecified ones, which say nothing. No version numbers."""
    if _IN_NUMBERS.search(text):
        for match in _IPV4.finditer(text):
            if not _VERSION_BEFORE.search(text, max(0, match.start() - 10), match.start()) or _after_scheme(
                text, match
            ):
                yield from _ip(match)
    if _IN_COLONS.search(text):
        for match in _IPV6.finditer(text):
            groups = sum(map(bool, match[0].split(":")))
            if groups >= 3 or (groups == 2 and any(map(str.isdigit, match[0]))):
                yield from _ip(match)


def _after_scheme(text: str, match: re.Match[str]) -> bool:
    return text.endswith(("//", "@", "=http"), 0, match.start())


def _ip(match: re.Match[str]) -> Iterator[Span]:
    try:
        address = ipaddress.ip_address(match[0])
    except ValueError:
        return
    # What begins with 0 is unowned address (RFC 1122) and somebody's version.
    if not address.is_loopback and not address.is_unspecified and not match[0].startswith("0."):
        yield Span(match.start(), match.end(), Kind.IP, str(address))


def macs(text: str) -> Iterator[Span]:
    """Hardware addresses, written with colons, dashes, or in Cisco's groups of four."""
    patterns = [_MAC] if _IN_COLONS.search(text) or _IN_DASHES.search(text) else []
    if _IN_DOTS.search(text):
        patterns.append(_MAC_DOTTED)
    for pattern in patterns:
        for match in pattern.finditer(text):
            value = re.sub(r"[:.-]", "", match[0]).lower()
            if not value.isdigit() or pattern is _MAC:
                yield Span(match.start(), match.end(), Kind.MAC, value)
