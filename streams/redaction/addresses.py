"""Addresses of networks and devices: IPv4, IPv6, MAC.

Four numbers with dots are an address, a version, an object identifier or a section of a document. A word before them
decides (`build 13.32.2.19`, `from 13.32.2.19`), or a port or a mask behind them. Without any, the size of the numbers
does: all four are below 40 in one random address of 1,700, and in most versions and sections.
"""

import ipaddress
import re
from collections.abc import Iterator
from functools import lru_cache

from streams.redaction.settings import Kind
from streams.redaction.spans import Span

_SMALL = 40
_WINDOW = 48
_IPV4 = re.compile(r"[0-9]{1,3}\.[0-9]{1,3}\.[0-9]{1,3}\.[0-9]{1,3}(?![^\W_]|\.[0-9])")
_DEFANGED = re.compile(r"(?<![\w.])[0-9]{1,3}(?:(?:\[\.\]|\(\.\)|\[dot\])[0-9]{1,3}){3}(?![\w.])", re.IGNORECASE)
_VERSION_BEFORE = re.compile(
    r"(?:(?<![A-Za-z])v(?:er\.?)?|(?:version|build|release|revision|(?<![A-Za-z])rev|firmware|(?<![A-Za-z])fw|oid)"
    r"(?:s|[_ -]?(?:no|number|num|id|name|string|code|tag|is|was))?|[=<>!~]=|[~^])[^\w\n]{0,4}\Z",
    re.IGNORECASE,
)
_PACKAGE_BEFORE = re.compile(
    r"(?<![A-Za-z])(?:pkg|package|nuget|dotnet|npm|pnpm|yarn|pip3?|pipx|gem|cargo|crate|maven|gradle|composer|conda|brew|choco"
    r"|winget|rpm|deb|apt|helm|chrome|chromium|chromedriver|edge?|firefox|opera|opr|safari)[^\w\n]{1,4}\Z",
    re.IGNORECASE,
)
_NAME_BEFORE = re.compile(r"[A-Za-z)][-/_] ?\Z")
_CONTINUED = re.compile(r"(?:[^\W_]|[^\W_]\.|\.)\Z")
_GLUED = re.compile(r"(?:ip|ipv4|addr|address|host|server|client)\Z", re.IGNORECASE)
_FILE_BEHIND = re.compile(
    r"[ ]\(?build\b|[-.+](?:rc|beta|alpha|snapshot|release|final|ga|dev|pre|post|build|jar|war|dll|exe|so|whl|zip|tar"
    r"|tgz|gz|deb|rpm|msi|apk|nupkg|gem|pkg|dmg|iso|md|txt|html|json)",
    re.IGNORECASE,
)
_PORT_BEHIND = re.compile(r":[0-9]{2,5}(?![0-9.])|/(?:[12]?[0-9]|3[0-2])(?![\w./])")
_ADDRESS_WORD = re.compile(
    r"(?<![A-Za-z])ips?v?(?![a-z])|(?<=[a-z])I[Pp](?![a-z])|addr|host|server|client|peer|remote|gateway|router"
    r"|\bdns|resolver|proxy|listen|\bbind|\bbound|connect|\bping|ssh|telnet|curl|wget|nmap|tracer|login|logged|subnet"
    r"|netmask|network|\bnode|endpoint|\binet|\bsrc|\bdst|source|destination|visitor|session|request|block"
    r"|\bban|denied|attack|https?\b|\btcp|\budp|forwarded|route|\bnc\b|\bdig\b|firewall|allow|deny|reach|whois|lease",
    re.IGNORECASE,
)
_FROM = re.compile(r"\b(?:from|via)[ :=]{1,2}\Z", re.IGNORECASE)
_WORD = re.compile(r"[A-Za-z]{2,32}|§")
_NUMBERING_WORD = re.compile(
    r"version|(?<![a-z])ver\b|build|release|revision|firmware|driver|patch|upgrad|updat|downgrad|\bbump|install|package"
    r"|librar|module|plugin|\bsdk\b|chrome|firefox|safari|\bedge\b|opera|kernel|section|\bsect?\b|chapter|clause"
    r"|paragraph|\bpara\b|appendix|annex|figure|\bfig\b|\btable|\brules?\b|\bstep|requirement|\breq|article|\boids?\b"
    r"|\bspec|\brfc|\bdll|assembly|\bitem|\bpart\b|\bsee\b|§|\bapp\b|\bagent|changelog|migrat|\bpip\b"
    r"|\bnpm\b",
    re.IGNORECASE,
)
_IPV6 = re.compile(r"(?<![\w:.])(?:[0-9A-Fa-f]{0,4}:){2,7}(?:[0-9A-Fa-f]{1,4}|(?:\d{1,3}\.){3}\d{1,3})?(?![\w:])")
# What is in use: global and local unicast, link-local, multicast, IPv4-mapped, translated (IANA's registry).
_IN_USE = tuple(
    map(ipaddress.IPv6Network, ("2000::/3", "fc00::/7", "fe80::/10", "ff00::/8", "::ffff:0:0/96", "64:ff9b::/96"))
)
# A search for one literal character is quick: what these do not find, the patterns of addresses need not look for.
_IN_COLONS = re.compile(r":(?::|[0-9A-Fa-f]{1,4}:[0-9A-Fa-f]{1,4}:)")
_IN_NUMBERS = re.compile(r"\.[0-9]{1,3}\.[0-9]")
_IN_DASHES = re.compile(r"-[0-9A-Fa-f]{2}-")
_IN_DOTS = re.compile(r"\.[0-9A-Fa-f]{4}\.")
_MAC = re.compile(r"(?<![\w:-])[0-9A-Fa-f]{2}(?:([:-])[0-9A-Fa-f]{2})(?:\1[0-9A-Fa-f]{2}){4}(?![\w:-])")
_MAC_DOTTED = re.compile(r"(?<![\w.])[0-9A-Fa-f]{4}\.[0-9A-Fa-f]{4}\.[0-9A-Fa-f]{4}(?!\w|\.\w)")
_MAC_WORD = re.compile(r"\bmac|_mac|[a-z]Mac|hwaddr|lladdr|bssid|ether|physical|hardware|link/", re.IGNORECASE)
_MAC_NAMES = ("mac", "hwaddr", "bssid")
_MAC_NAMED = re.compile(
    r"(?:[ _-]?addr(?:ess)?)?(?:_|[^\w\n]){0,4}"
    r"(?P<mac>[0-9a-f]{2}(?P<separator>[ ._:-]?)(?:[0-9a-f]{2}(?P=separator)){4}[0-9a-f]{2}|[0-9a-f]{6}-[0-9a-f]{6})"
    r"(?![^\W_])",
    re.IGNORECASE,
)


def in_colons(text: str) -> bool:
    """Return whether there may be an IPv6 or a hardware address with colons in the text."""
    return _IN_COLONS.search(text) is not None


def ips(text: str, colons: bool) -> Iterator[Span]:
    """Addresses of both versions, but for loopback, unspecified ones and netmasks, which say nothing. No versions."""
    if _IN_NUMBERS.search(text):
        for match in _IPV4.finditer(text):
            if _is_address(text, match):
                yield from _ip(match, match[0])
    if "[.]" in text or "(.)" in text or "[dot]" in text:
        for match in _DEFANGED.finditer(text):
            yield from _ip(match, ".".join(re.findall(r"[0-9]+", match[0])))
    if colons:
        for match in _IPV6.finditer(text):
            groups = sum(map(bool, match[0].split(":")))
            if groups >= 3 or (groups == 2 and any(map(str.isdigit, match[0]))):
                yield from _ip(match, match[0])


def _is_address(text: str, match: re.Match[str]) -> bool:
    start, end = match.span()
    if text.endswith(("//", "@", "=http"), 0, start):
        return True
    near = max(0, start - 24)
    if _CONTINUED.search(text, near, start):
        return _GLUED.search(text, near, start) is not None
    if _VERSION_BEFORE.search(text, near, start):
        return False
    if _PACKAGE_BEFORE.search(text, near, start) and not _PORT_BEHIND.match(text, end):
        return False
    parts = [int(part) for part in match[0].split(".")]
    small = max(parts[1:]) < _SMALL
    if small and _FILE_BEHIND.match(text, end):
        return False
    if small and _NAME_BEFORE.search(text, near, start):
        return _ADDRESS_WORD.search(text, max(0, start - 12), start) is not None
    if not small or parts[0] >= _SMALL or _PORT_BEHIND.match(text, end):
        return True
    for word in reversed(_WORD.findall(text, max(0, start - _WINDOW), start)):
        if (decided := _speaks_of_addresses(word)) is not None:
            return decided
    return parts[0] == 10 or _FROM.search(text, near, start) is not None


@lru_cache(maxsize=4096)
def _speaks_of_addresses(word: str) -> bool | None:
    """Return whether an address stands behind the word, or a version or a section; None when it says nothing."""
    if _ADDRESS_WORD.search(word):
        return True
    return False if _NUMBERING_WORD.search(word) else None


def _ip(match: re.Match[str], written: str) -> Iterator[Span]:
    try:
        address = ipaddress.ip_address(written)
    except ValueError:
        return
    if address.version == 6 and not any(address in network for network in _IN_USE):
        return
    if written.startswith("255.") and _is_netmask(int(address)):
        return
    # What begins with 0 is unowned address (RFC 1122) and somebody's version.
    if not address.is_loopback and not address.is_unspecified and not written.startswith("0."):
        yield Span(match.start(), match.end(), Kind.IP, str(address))


def _is_netmask(address: int) -> bool:
    """Return whether its 32 bits are ones and then zeros, as those of 255.255.240.0 are."""
    zeros = ~address & 0xFFFFFFFF
    return zeros & (zeros + 1) == 0


def macs(text: str, colons: bool) -> Iterator[Span]:
    """Hardware addresses: with colons, dashes, or in Cisco's groups of four; after their name in other forms, too."""
    patterns = [_MAC] if colons or _IN_DASHES.search(text) else []
    if _IN_DOTS.search(text):
        patterns.append(_MAC_DOTTED)
    for pattern in patterns:
        for match in pattern.finditer(text):
            value = _hexadecimal(match[0])
            # Six numbers of two digits are mostly a score or a time, one hardware address of 280 is.
            if (not value.isdigit() and (pattern is _MAC or not value.isalpha())) or _MAC_WORD.search(
                text, max(0, match.start() - 24), match.start()
            ):
                yield Span(match.start(), match.end(), Kind.MAC, value)
    lower = text.lower()
    for name in _MAC_NAMES:
        at = lower.find(name)
        while at >= 0:
            named = _MAC_NAMED.match(text, at + len(name))
            if named and not text[at - 1 : at].islower() and not (value := _hexadecimal(named["mac"])).isalpha():
                yield Span(*named.span("mac"), Kind.MAC, value)
            at = lower.find(name, at + len(name))


def _hexadecimal(written: str) -> str:
    return re.sub(r"[^0-9a-f]", "", written.lower())
