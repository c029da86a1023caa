"""Personal data that has a checkable form: e-mail, phone, IBAN, SSN. Cards and addresses of networks stand beside.

A cheap scan finds candidates; a check sum, a length, or a library that knows the numbering plans decides. Phone numbers
are `phonenumbers`' to judge, but only where seven digits stand close together: its own search of a text takes fifteen
times as long as everything else here.
"""

import re
from collections.abc import Iterator

import phonenumbers
from phonenumbers import Leniency, PhoneNumberMatcher

from streams.redaction.cards import ENOUGH_DIGITS, cards
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

_RUN = re.compile(r"[0-9](?:[ ().\-/_+·\t]{0,3}+[0-9]){6,}+")
_DIGITS = re.compile(r"[0-9](?:[ ().\-/]{0,3}+[0-9]){6,}+")
_SSN = re.compile(r"(?<![^\W_])(?<!-)(?!000|666|9)\d{3}-(?!00)\d\d-(?!0000)\d{4}(?![^\W_]|-)")
_SSN_NAMED = re.compile(
    r"(?<![0-9])(?!000|666|9)[0-9]{3}(?P<separator>[ ]?[-._/ ]?[ ]?)(?!00)[0-9]{2}(?P=separator)(?!0000)[0-9]{4}"
    r"(?![^\W_])"
)
# Not the middle of `className`. The names of placeholders are not words that announce a number.
_SSN_WORD = re.compile(
    r"(?<![<A-Za-z])ssn(?:o|um\w{0,8})?(?![a-z])|(?<![<A-Z])SSN|(?<=[a-z])SSN|(?<![<A-Za-z])Ssn|(?<=[a-z])Ssn(?![a-z])"
    r"|(?i:(?<!<)social.?(?:sec|n[ou]|[#:=])|\bss ?#|soc\.? sec|tax.?(?:payer.?)?id)"
)
_PHONE_WORD = re.compile(
    r"(?<!<)phone|\btel\b|mobile|\bcell|\bfax|\bcall|whats|\bsms|contact|\bdial|text (?:me|us)|msisdn", re.IGNORECASE
)
_PHONE_NAME = re.compile(r"(?:phone|tel|mobile|cell|fax|call|whatsapp|sms|msisdn)_?\Z", re.IGNORECASE)
_US_SHAPE = re.compile(r"(?:\+?1[ .-]?)?(?:\(\d{3}\) ?|\d{3}[ .-])\d{3}[ .-]\d{4}")
_NO_PHONE = re.compile(  # decimal numbers, dates, and addresses of the internet
    r"\d+\.\d+|\d{4}[-/.]\d\d?[-/.]\d\d?(?:\D.*)?|\d\d?[-/.]\d\d?[-/.]\d{4}(?:\D.*)?|(?:\d{1,3}\.){3}\d{1,3}"
)
# `126.0.6478.127` is a browser's version, though `1.415.555.2671` is a number; no version begins with a zero.
_VERSION = re.compile(
    r"(?<![0-9.+(])(?!0[0-9]|1\.[0-9]{3}\.[0-9]{3}\.[0-9]{4}(?![0-9]))(?:[0-9]{1,5}\.){3}[0-9]{1,5}(?![0-9]|\.[0-9])"
)
# A sign says little in a row of signed numbers, `+445 -1022 +78`, and before thousands, `+11 566 843 points`.
_SIGNED_ROW = re.compile(r"(?<![\w.)+-])[+-][0-9]{1,6}[ \t,;|/]{1,3}[+-][0-9]{1,6}(?![0-9-])")
_SIGNED_INSIDE = re.compile(r"[ \t][+-][0-9]")
_THOUSANDS = re.compile(r"\+[0-9]{1,3}(?:(?:[ ][0-9]{3})+|(?:\.[0-9]{3})+)")
_SHORTEST_PHONE = 9  # in characters, unless a word or a plus sign announces it
# A row of a table: six numbers and more, but for three of the shape 415 555 2671, and pairs as in France.
_ROW = re.compile(r"[0-9]+(?:[ ][0-9]+){5,}")
_GROUPS_OF_A_PHONE = re.compile(
    r"(?<![0-9])[0-9]{3}[ ][0-9]{3}[ ][0-9]{4}(?![0-9])|(?<![0-9])(?:[0-9]{2}[ ]){4}[0-9]{2}(?![0-9])"
)
_EXTENSION = re.compile(r"x[0-9]|ext", re.IGNORECASE)
_LONG_ROW = re.compile(r"\+?[0-9]+(?:[ ][0-9]+){7,}")
_COLUMN = re.compile(r"[^ ]+(?:[ ][^ ]+)*")
_UUID = re.compile(r"[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}")
_CHECK_DIGITS = re.compile(r"[0-9][0-9](?<=[A-Za-z]{2}[0-9]{2})")
_IBAN = re.compile(
    r"(?:(?<![A-Za-z0-9])|(?<=iban)|(?<=IBAN)|(?<=Iban))[A-Za-z]{2}[0-9]{2}(?:[ ./_+-]?[A-Za-z0-9]){11,30}"
)
_DOMAIN = re.compile(r"@(?:\[[0-9a-fA-F.:]{3,45}\]|[^\W_](?:[\w-]{0,62}\.)+[^\W\d_](?:[\w-]{0,30}[^\W_]))")
_LOCAL = re.compile(r"""(?:[\w!#$%&'*+/=?^`{|}~.-]{1,64}|"[^"\r\n]{1,62}")\Z""")


def emails(text: str) -> Iterator[Span]:
    """Addresses by the shape of their two halves; an address needs a domain with a dot, or one of brackets."""
    if "@" not in text:
        return
    for domain in _DOMAIN.finditer(text):
        begin = max(0, domain.start() - 64)
        if local := _LOCAL.search(text, begin, domain.start()):
            start = local.start() + len(local[0]) - len(local[0].lstrip("./='`{|*?&"))
            if start < domain.start() and not _is_remote(text, start, domain):
                yield Span(start, domain.end(), Kind.EMAIL, text[start : domain.end()].lower())


def _is_remote(text: str, start: int, domain: re.Match[str]) -> bool:
    """Return whether it names a repository, as `git@example.com:a/b` does, or is a product: `q@k.transpose(0)`."""
    behind = text[domain.end() : domain.end() + 1]
    if not behind or behind not in ":/(":
        return False
    name = text[start : domain.start()]
    if text[start - 1 : start] == "\\":  # of a `\t` before it
        name = name[1:]
    last = domain[0].rpartition(".")[2]
    return (name in ("git", "hg", "svn") and behind in (":", "/")) or (behind == "(" and len(last) > 4)


def numbers(text: str, phone_regions: tuple[str, ...], kinds: frozenset[Kind]) -> Iterator[Span]:
    """Cards, social security numbers and phone numbers: whatever begins with seven digits close together."""
    for run in _RUN.finditer(text):
        found = list(_in_run(text, run, phone_regions, kinds))
        if found and not ("-" in run[0] and _in_uuid(text, *run.span())):
            yield from found


def _in_run(text: str, run: re.Match[str], regions: tuple[str, ...], kinds: frozenset[Kind]) -> Iterator[Span]:
    start, end = run.span()
    found = cards(text, start, end) if Kind.CARD in kinds and ENOUGH_DIGITS.match(text, start, end) else []
    if Kind.SSN in kinds:
        found += _ssns(text, start, end)
    yield from found
    if Kind.PHONE in kinds:
        for part in _DIGITS.finditer(text, start, end):
            if not any(span.start < part.end() and part.start() < span.end for span in found):
                for begin, finish in _without_versions(text, *part.span()):
                    yield from _phones(text, begin, finish, regions)


def _without_versions(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    """The stretches of digits between the versions of four parts; all of it where there is none."""
    for version in _VERSION.finditer(text, start, end):
        if digits := _DIGITS.search(text, start, version.start()):
            yield digits.span()
        start = version.end()
    if digits := _DIGITS.search(text, start, end):
        yield digits.span()


def _in_uuid(text: str, start: int, end: int) -> bool:
    around = _UUID.finditer(text, max(0, start - 36), end + 36)
    return any(uuid.start() < end and start < uuid.end() for uuid in around)


def _ssns(text: str, start: int, end: int) -> Iterator[Span]:
    for match in _SSN_NAMED.finditer(text, start, end):
        if _SSN.match(text, match.start()) or _SSN_WORD.search(text, max(0, start - 30), start):
            yield Span(match.start(), match.end(), Kind.SSN, re.sub(r"\D", "", match[0]))


def _phones(text: str, start: int, end: int, regions: tuple[str, ...]) -> Iterator[Span]:
    while start and text[start - 1] in "+(":
        start -= 1
    stuck = start > 0 and (text[start - 1].isalnum() or text[start - 1] in "_$€£")
    if (stuck and not _PHONE_NAME.search(text, max(0, start - 12), start)) or (
        text[end : end + 1].isalpha() and not _EXTENSION.match(text, end)
    ):
        return
    candidate = text[start:end]
    international = candidate.startswith(("+", "(+", "00"))
    if not international and _NO_PHONE.fullmatch(candidate):
        return
    spoken = _PHONE_WORD.search(text, max(0, start - 24), start) is not None
    if not international and not spoken and candidate.isdigit():
        return
    lenient = international or spoken
    if international and not spoken:
        if _SIGNED_ROW.search(text, max(0, start - 12), end + 12):
            if _SIGNED_INSIDE.search(candidate):
                return
            lenient = False
        elif _THOUSANDS.fullmatch(candidate):
            lenient = False
    row = (_LONG_ROW if lenient else _ROW).fullmatch(candidate)
    if row and not _GROUPS_OF_A_PHONE.search(candidate):
        return
    # Two spaces stand between the columns of a table.
    for part in [(0, len(candidate))] if lenient else _apart(candidate):
        for number, begin, finish in _matches(candidate[slice(*part)], regions, lenient):
            yield Span(start + part[0] + begin, start + part[0] + finish, Kind.PHONE, number)


def _apart(candidate: str) -> list[tuple[int, int]]:
    if "  " not in candidate:
        return [(0, len(candidate))] if len(candidate) >= _SHORTEST_PHONE else []
    return [part.span() for part in _COLUMN.finditer(candidate) if len(part[0]) >= _SHORTEST_PHONE]


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
    return _US_SHAPE.fullmatch(raw) is not None or (
        len(raw) >= _SHORTEST_PHONE and phonenumbers.is_valid_number(number)
    )


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
