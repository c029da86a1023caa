"""Secrets that a word before them gives away: passwords, tokens, connection strings, authorization headers.

Words are looked up by their stems, each of which costs some 0.3 µs per kB; the patterns then begin at a word's end. One
pattern of all words took ten times as long, and the keyword patterns of detect-secrets forty times.
"""

import base64
import binascii
import itertools
import re
from collections.abc import Iterator

from streams.redaction.settings import Kind
from streams.redaction.spans import Span

# In lower case. After a sure word stands a secret unless it is plainly none; after a vague one it must look random.
_SURE = {
    "pass": ("passw", "passphrase", "mot de passe"),
    "pwd": ("pwd",),
    "secret": ("secret",),
    "contrase": ("contrase",),
    "kennwort": ("kennwort",),
}
_VAGUE = {
    "token": ("token",),
    "auth": ("auth",),
    "pass": ("passcode", "pass=", "pass:"),
    "key": (
        *("api_key", "api-key", "apikey", "api key", "access_key", "access-key", "accesskey", "accountkey"),
        *("account_key", "private_key", "encryption_key", "signing_key"),
    ),
    "credential": ("credential",),
    "sig": ("signature", "sig="),
    "session": ("session_id", "sessionid"),
}
_QUOTED = r"""(?P<quote>["'`])(?P<quoted>[^"'`\r\n<>]{1,512})(?P=quote)"""
_BARE = r"""(?P<bare>[^\s"'`,;&<>{}()\[\]|\\]{4,512})(?P<call>[(\[]?)"""
_VALUE = rf"(?:(?:Bearer|Basic|Digest|Token|ApiKey)[ ]{{1,3}})?(?:{_QUOTED}|{_BARE})"
_SIGN = r"""["'`\])]{0,3}(?P<sign>[ \t]{0,8}(?:=>|:=|!==?|={1,3}|:)\s{0,8}|[ ](?:is|was):?[ ])"""
_AFTER_SURE = re.compile(rf"[\w-]{{0,24}}{_SIGN}{_VALUE}", re.IGNORECASE)
_AFTER_VAGUE = re.compile(
    rf"(?:orization|entication)?(?:[_-]?(?:id|key|value|token|secret|code))?s?{_SIGN}{_VALUE}", re.IGNORECASE
)
_OPTION_BEFORE = re.compile(r"(?<!\S)--[\w-]{0,24}\Z")
_AFTER_OPTION = re.compile(rf"[\w-]{{0,24}}[ ](?:{_QUOTED}|{_BARE})")
_AFTER_SCHEME = re.compile(r"[ ]{1,3}([A-Za-z0-9._~+/-]{8,4096}={0,2})")
_AFTER_COOKIE = re.compile(r"""["']?[ ]{0,3}:[ ]{0,3}["']?([\w.-]{1,64}=[^\r\n"'<>\\]{8,4096})""")
_URL = re.compile(r"""://[^\s/?#@:"'<>\\]{0,128}:([^\s/"'<>\\]{1,256})@""")
_CURL = re.compile(r"""(?<=\s)(?:-u|--user)[ =]{0,2}["']?[^\s:"'<>]{1,128}:([^\s"'<>]{1,256})""")

_NO_SECRET = re.compile(
    r"(?:none|null|nil|true|false|undefined|required|optional|string|str|bytes|int|redacted|changeme)\b|[*.•_-]+\Z"
    r"|[xX]+\Z|\$|%[sd(]|(?:[A-Za-z_]\w*\.)+[A-Za-z_]\w*\Z|\w*(?:passw|passphrase|secret|token|api_?key|pwd)[a-z_]*\Z",
    re.IGNORECASE,
)
_NAMES_A_SECRET = re.compile(
    r"(?:passw(?:or)?d|passphrase|pwd|secret|api[_-]?key|access[_-]?key|private[_-]?key|account[_-]?key|authorization"
    r"|(?:access|auth|refresh|bearer|session|api|id|csrf)[_-]?token|credentials?|(?<![A-Za-z])(?:cookie|pin|cvv|cvc))s?\d?\Z",
    re.IGNORECASE,
)


def names_a_secret(key: str) -> bool:
    """Return whether the value under this key of a JSON object is a secret, whatever it looks like.

    >>> names_a_secret("db_password"), names_a_secret("max_tokens")
    (True, False)
    """
    return _NAMES_A_SECRET.search(key) is not None


def passwords(text: str) -> Iterator[Span]:
    """The values of assignments, options, headers and URLs; the name beside them stays."""
    lower = text.lower()
    if len(lower) != len(text):  # few characters grow in lower case, and places must stay
        lower = "".join(character.lower()[0] for character in text)
    for words, after, sure in ((_SURE, _AFTER_SURE, True), (_VAGUE, _AFTER_VAGUE, False)):
        for word in itertools.chain.from_iterable(words[stem] for stem in words if stem in lower):
            for end in _ends(lower, word):
                yield from _value(text, after.match(text, end - (word[-1] in "=:")), sure)
                if _OPTION_BEFORE.search(text, max(0, end - len(word) - 32), end - len(word)):
                    yield from _value(text, _AFTER_OPTION.match(text, end), sure)
    yield from _headers(text, lower)
    if "://" in text:
        yield from (Span(*match.span(1), Kind.PASSWORD, match[1]) for match in _URL.finditer(text))
    if "curl" in lower:
        yield from (Span(*match.span(1), Kind.PASSWORD, match[1]) for match in _CURL.finditer(text))


def _ends(lower: str, word: str) -> Iterator[int]:
    at = lower.find(word)
    while at >= 0:
        yield at + len(word)
        at = lower.find(word, at + len(word))


def _value(text: str, match: re.Match[str] | None, sure: bool) -> Iterator[Span]:
    if match is None:
        return
    quoted = match["quoted"]
    sign = match["sign"] if "sign" in match.re.groupindex else "="
    if quoted is not None:
        value, (start, end) = quoted, match.span("quoted")
    else:
        value = match["bare"].rstrip(".,:!?")
        start, end = match.start("bare"), match.start("bare") + len(value)
        if match["call"]:
            return
    if _NO_SECRET.match(value):
        return
    random = sum(map(str.isdigit, value)) >= 2 and any(map(str.isalpha, value)) and len(value) >= 8
    if sure and quoted is None and value.replace("-", "").isalpha():
        # A word of language: taken where nothing but a secret would stand, as in `password=swordfish`.
        alone = ":" in sign and "\n" not in sign and text[end : end + 1] in ("", "\n", "\r")
        random = sign == "=" or alone
    elif sure:
        random = len(value) >= 3
    if random:
        yield Span(start, end, Kind.PASSWORD, value)


def _headers(text: str, lower: str) -> Iterator[Span]:
    for end in _ends(lower, "bearer"):
        match = _AFTER_SCHEME.match(text, end)
        if match and any(map(str.isdigit, match[1])):
            yield Span(*match.span(1), Kind.PASSWORD, match[1])
    for end in _ends(lower, "basic"):
        match = _AFTER_SCHEME.match(text, end)
        if match and _is_basic(match[1]):
            yield Span(*match.span(1), Kind.PASSWORD, match[1])
    for end in _ends(lower, "cookie"):
        if match := _AFTER_COOKIE.match(text, end):
            yield Span(*match.span(1), Kind.PASSWORD, match[1])


def _is_basic(credentials: str) -> bool:
    """Return whether it is `user:password` in base64 (RFC 7617)."""
    try:
        return b":" in base64.b64decode(credentials + "=" * (-len(credentials) % 4), validate=True)
    except binascii.Error:
        return False
