"""Secrets that a word before them gives away: passwords, tokens, connection strings, authorization headers.

Words are looked up by their stems, each of which costs some 0.3 µs per kB; the patterns then begin at a word's end. One
pattern of all words took ten times as long, and the keyword patterns of detect-secrets forty times.
"""

import base64
import binascii
import itertools
import re
from collections.abc import Iterator
from typing import TypeAlias

from streams.redaction.command_lines import command_lines
from streams.redaction.defaults import defaults
from streams.redaction.hashes import hashes
from streams.redaction.references import is_label, is_prompt, is_reference, is_variable
from streams.redaction.secret_keys import names_a_secret, points_to_a_secret
from streams.redaction.settings import Kind
from streams.redaction.spans import Span

Words: TypeAlias = dict[str, tuple[str, ...]]

# In lower case. After a sure word stands a secret unless it is plainly none; after a vague one it must look random.
_SURE: Words = {
    "pass": ("passw", "passphrase", "mot de passe", "pass-word", "pass_word", "pass word"),
    "pwd": ("pwd",),
    "secret": ("secret",),
    "contrase": ("contrase",),
    "kennwort": ("kennwort",),
    "wachtwoord": ("wachtwoord",),
    "senha": ("senha",),
    "lösenord": ("lösenord",),
    "salasana": ("salasana",),
    "парол": ("парол",),
    "密": ("密码", "密碼"),
    "パスワード": ("パスワード",),
    "비밀번호": ("비밀번호",),
    "hasło": ("hasło",),
    "heslo": ("heslo",),
    "jelsz": ("jelszó",),
    "şifre": ("şifre",),
}
_VAGUE: Words = {
    "token": ("token",),
    "auth": ("auth",),
    "pass": ("passcode",),
    "key": ("key",),
    "credential": ("credential",),
    "sig": ("signature", "sig="),
    "session": ("session_id", "sessionid"),
    "psk": ("psk",),
    "clave": ("clave",),
    "parola": ("parola",),
}
# Words within others, so that a name must begin or end at them.
_SHORT: Words = {"pass": ("pass",), "pw": ("pw",)}
_ALONE = frozenset({"pass", "pw", "clave", "parola", "heslo"})
_KEY_OF_SECRETS = re.compile(
    r"(?:api|access|account|private|encryption|signing|master|shared|consumer|subscription|license|deploy|storage|client"
    r"|ssh|hmac|aes|app|application|service|admin)[ ._-]?\Z",
    re.IGNORECASE,
)
_ACCOUNT_BEFORE = re.compile(
    r"(?<![a-z])(?:db|database|user|usr|smtp|e?mail|ftp|admin|root|my|mysql|sql|pg|postgres|redis|rabbit(?:mq)?|mongo|ldap"
    r"|https?|proxy|login|sudo|ssh|basic|auth|key(?:store)?|truststore|app|client|server|wifi|vpn|imap)[._-]?\Z",
    re.IGNORECASE,
)
_OPEN = r"""(?:(?:b|r|u|br|rb|@|String::from\(|Some\(|SecretStr\(|Secret\(|str\()?(?P<quote>\"\"\"|'''|["'`])\s{0,8})"""
_QUOTED = rf"{_OPEN}(?P<quoted>(?:(?!(?P=quote))[^\r\n]){{1,512}})\s{{0,8}}(?P=quote)"
_BARE = r"""(?P<bare>[^\s"'`,;&<>{}()\[\]|\\]{4,512})(?P<call>[(\[]?)"""
_VALUE = rf"(?:(?:Bearer|Basic|Digest|Token|ApiKey)[ ]{{1,3}})?(?:{_QUOTED}|{_BARE})"
_SIGN = (
    r"""(?:["'`\])*]{0,4}(?P<sign>[ ]?:[ ]?[A-Za-z_][\w.\[\]?]{0,32}[ ]?=[ ]?(?=[bru"'])"""  # password: str = "…"
    r"""|[ \t]{0,8}(?:=>|:=|!==?|[?+]?={1,3}|:|→)(?:[ ][|>][+-]?(?=\s))?(?:[ ]?\*\*(?=[ ]))?\s{0,8}"""
    r"""(?:!!str[ ]|&\w{1,32}[ ]|\\\r?\n\s{0,8}|\(\s{0,8}(?=["']))?"""
    r"""|[ ]->?[ ]{1,3}|\s{0,3}(?:\|\||\?\?|\?:|or(?=[ ]))\s{0,8}(?=["'`])"""  # a dash, a default
    r"""|[ ](?:is|was):?[ ]|(?<!["'])[ ](?=["'])|(?<=set.{8})\((?=["'])"""
    r"""|(?:,\s{0,24}|\s{1,24})["']?(?:Parameter)?Value["']?[ ]{0,4}[:=][ ]{0,4})|(?P<tag>["']?>(?:<!\[CDATA\[)?))"""
)
# Most of the words stand in prose, where no sign follows.
_BEFORE_A_SIGN = {
    word: re.compile(re.escape(word) + r"(?!(?:[ ][^ \t=:!→'\"\r\npvwi|?o-]|[.;]))")
    for word in itertools.chain.from_iterable((*_SURE.values(), *_VAGUE.values(), *_SHORT.values()))
}
_AFTER_SURE = re.compile(rf"(?P<tail>[\w-]{{0,24}}){_SIGN}{_VALUE}", re.IGNORECASE)
_AFTER_VAGUE = re.compile(
    rf"(?P<tail>(?:orization|entication)?(?:[_-]?(?:id|key|value|token|secret|code))?s?){_SIGN}{_VALUE}", re.IGNORECASE
)
# A value of which the rest is missing, and the quote that ends it: of arguments or a result that were cut off.
_CUT_OFF = re.compile(
    rf"""(?P<tail>[\w-]{{0,24}}){_SIGN}(?P<quote>["'`])"""
    r"""(?P<cut>(?=[\w!@#$^*~?])(?:(?!(?P=quote))[^\r\n]){3,512})(?=[\r\n]|\Z)""",
    re.IGNORECASE,
)
_NAME_BEFORE = re.compile(r"""(?:name|key)=["'][\w.-]*\Z""", re.IGNORECASE)
_OPTION = re.compile(r"""--(?<![^\s"'`]--)(?P<name>[A-Za-z][\w-]{1,47})(?=[ ]|["'],)""")
_AFTER_OPTION = re.compile(rf"(?P<tail>[\w-]{{0,24}})(?P<sign>)[ ](?:{_QUOTED}|{_BARE})")
# The list of arguments of a command, or of a function that defines an option.
_AFTER_LISTED = re.compile(
    rf"""(?P<tail>[\w-]{{0,24}})(?P<sign>)["'],\s{{0,24}}(?=["'][^\s"'-][^\s"']{{4,512}}["']){_QUOTED}(?P<bare>)(?P<call>)"""
)
_VALUE_FIRST = re.compile(
    r"""["']value["']\s{0,4}:\s{0,4}(?P<quote>["'])(?P<quoted>(?:(?!(?P=quote))[^\r\n]){3,512})(?P=quote)\s{0,4},\s{0,24}"""
    r"""["'](?:name|key)["']\s{0,4}:\s{0,4}["'](?P<name>[\w.-]{1,64})["']""",
    re.IGNORECASE,
)
_AFTER_SCHEME = re.compile(r"[ ]{1,3}(?!HTTP/[0-9])([A-Za-z0-9._~+/-]{8,4096}={0,2})")
_AFTER_COOKIE = re.compile(r"""["']?[ ]{0,3}:[ ]{0,3}["']?([\w.-]{1,64}=[^\r\n"'<>\\]{6,4096})""")
_OR_ELSE = ("||", "??", "?:", "or")
_NEAR_ENVIRONMENT = 32  # characters
# The value of a line of a file for the shell reaches to the line's end, whatever characters are in it.
_SHELL_LINE = re.compile(
    r"(?P<tail>[\w-]{0,24})(?P<sign>=)(?P<quoted>(?!))?"
    r"(?P<bare>[^\s\"'`$<>{}(\\][^\s\"'`<>\\]{2,511})(?P<call>)(?=\s|\Z)"
)
_LINE_BEFORE = re.compile(r"(?:^|\n)[ \t]{0,4}(?:export |ENV |ARG |set )?[\w.-]{0,48}\Z")


def passwords(text: str) -> Iterator[Span]:
    """The values of assignments, options, headers and URLs; the name beside them stays."""
    lower = text.lower()
    if len(lower) != len(text):  # few characters grow in lower case, and places must stay
        lower = "".join(character.lower()[0] for character in text)
    for words in (_SURE, _VAGUE, _SHORT):
        for word in itertools.chain.from_iterable(words[stem] for stem in words if stem in lower):
            for place in _BEFORE_A_SIGN[word].finditer(lower):
                yield from _after(text, lower, word, place.end(), words)
    if "--" in text:
        yield from _options(text, lower)
    if "value" in lower:
        for match in _VALUE_FIRST.finditer(text):
            value = match["quoted"]
            if names_a_secret(match["name"]) and not is_label(value) and not is_reference(value):
                yield Span(*match.span("quoted"), Kind.PASSWORD, value)
    yield from _headers(text, lower)
    yield from command_lines(text, lower)
    yield from hashes(text)
    yield from defaults(text, lower)


def _ends(lower: str, word: str) -> Iterator[int]:
    at = lower.find(word)
    while at >= 0:
        yield at + len(word)
        at = lower.find(word, at + len(word))


def _after(text: str, lower: str, word: str, end: int, words: Words) -> Iterator[Span]:
    match = (_AFTER_SURE if words is _SURE else _AFTER_VAGUE).match(text, end - (word[-1] in "="))
    line = None if words is _VAGUE else _SHELL_LINE.match(text, end)
    cut = _CUT_OFF.match(text, end) if match is None else None
    if match is None and line is None and cut is None:
        return
    start = end - len(word)
    if not _is_whole(text, start, word):
        return
    sure, least = words is _SURE, 2 if words is _VAGUE else 1
    if words is _SHORT:
        sure = _ACCOUNT_BEFORE.search(text, max(0, start - 16), start) is not None
        if not sure and text.startswith("PASS:", start):  # the report of a test
            return
    if match is not None and not (match["tag"] and not _is_element(text, lower, start, word, match)):
        yield from _value(text, match, start, sure, least)
    if cut is not None:
        yield from _cut_off(text, cut, start, sure, least)
    if line is not None and sure and _LINE_BEFORE.search(text, max(0, start - 64), start):
        yield from _value(text, line, start, sure, least)


def _is_whole(text: str, start: int, word: str) -> bool:
    """Return whether a short word is not a part of another, and a key one of those that are secret."""
    if word == "key":
        return _KEY_OF_SECRETS.search(text, max(0, start - 14), start) is not None
    return (
        word not in _ALONE
        or not text[start - 1 : start].isalpha()
        or (text[start].isupper() and text[start - 1].islower())
    )


def _options(text: str, lower: str) -> Iterator[Span]:
    """The arguments of `--password …`; those with an equals sign are assignments."""
    for option in _OPTION.finditer(text):
        name, end = option.start("name"), option.end("name")
        for words in (_SURE, _SHORT, _VAGUE):
            for word in itertools.chain.from_iterable(words.values()):
                start = lower.find(word, name, end)
                if start < 0 or not _is_whole(text, start, word):
                    continue
                if argument := _AFTER_OPTION.match(text, start + len(word)):
                    yield from _value(text, argument, start, words is not _VAGUE, 2 if words is _VAGUE else 1)
                elif argument := _AFTER_LISTED.match(text, start + len(word)):
                    yield from _value(text, argument, start, False, 2 if words is _VAGUE else 1)


def _is_element(text: str, lower: str, start: int, word: str, match: re.Match[str]) -> bool:
    """Return whether the value is the content of an XML element that the word names, or an attribute with the word."""
    end = match.end()
    named = _NAME_BEFORE.search(text, max(0, start - 48), start) is not None
    return text.startswith(("</", "]]></"), end) and (named or word in lower[end : end + 64])


def _value(text: str, match: re.Match[str] | None, word: int, sure: bool, least: int) -> Iterator[Span]:
    if match is None or points_to_a_secret(text, word, match["tail"]):
        return
    sign, quoted = match["sign"] or "=", match["quoted"]
    if quoted is not None:
        value = quoted.rstrip()
        start, end = match.start("quoted"), match.start("quoted") + len(value)
        if is_label(value) or (sign.strip() in _OR_ELSE and not _is_default(text, word, value)):
            return
    else:
        value = match["bare"].rstrip(".,:!?*")
        start, end = match.start("bare"), match.start("bare") + len(value)
        if sign.startswith(" -") and (
            value.isalpha() or text[end : end + 1] in (" ", "(") or text[match.start("sign") - 1] == ")"
        ):
            return  # a dash in prose, or the type that a function returns
        if match["call"] or is_variable(value, sign, text[end : end + 1]):
            return
        alone = text[end : end + 1] in ("", "\n", "\r", '"')
        if "\n" in sign and not (alone and not is_prompt(value)):
            return
    if is_reference(value):
        return
    random = sum(map(str.isdigit, value)) >= least and any(map(str.isalpha, value)) and len(value) >= 5 + least
    if sure and quoted is None and value.replace("-", "").isalpha():
        # A word of language: taken where nothing but a secret would stand, as in `password=swordfish`.
        random = sign == "=" or (":" in sign and alone and ("\n" not in sign or "|" in sign or ">" in sign))
    elif sure:
        random = len(value) >= 3 and not (sign == " " and value.isalpha())
    if random:
        yield Span(start, end, Kind.PASSWORD, value)


def _cut_off(text: str, match: re.Match[str], word: int, sure: bool, least: int) -> Iterator[Span]:
    sign, value = match["sign"] or "", match["cut"].rstrip()
    if not {*sign} & {*":="} or "\n" in sign or points_to_a_secret(text, word, match["tail"]):
        return
    digits = sum(map(str.isdigit, value))
    # Prose goes on in the next line, too; but a name in quotes is not prose.
    if " " in value and not digits and text[match.start("sign") - 1] != match["quote"]:
        return
    if not is_label(value) and not is_reference(value) and (sure or (digits >= least and len(value) >= 5 + least)):
        yield Span(match.start("cut"), match.start("cut") + len(value), Kind.PASSWORD, value)


def _is_default(text: str, word: int, value: str) -> bool:
    """Return whether a value that stands in for a missing one is a secret: `env.DB_PASSWORD || "hunter22"`."""
    return " " not in value and (
        any(map(str.isdigit, value)) or "env" in text[max(0, word - _NEAR_ENVIRONMENT) : word].lower()
    )


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
