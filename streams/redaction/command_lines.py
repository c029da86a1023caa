"""Passwords in URLs, in arguments of commands, and in files of settings that write no sign between name and value."""

import itertools
import re
from collections.abc import Iterator

from streams.redaction.references import is_reference
from streams.redaction.settings import Kind
from streams.redaction.spans import Span

_URL = re.compile(r"""://[^\s/?#@:"'<>\\]{0,128}:([^\s/"'<>\\]{1,256})@""")
_CURL = re.compile(r"""(?<=\s)(?:-u|--user)[ =]{0,2}["']?[^\s:"'<>]{1,128}:([^\s"'<>]{1,256})""")
# By a text in small letters that stands in all of them.
_COMMANDS = {
    "sshpass": (re.compile(r"sshpass[ ]{1,3}-p[ ]?[\"']?([^\s\"'$<>]{3,256})"),),
    "requirepass": (re.compile(r"requirepass[ ][\"']?([^\s\"'<>]{3,256})"),),
    "password ": (
        re.compile(r"\bpassword[ ][05-9][ ](?=[^\s\"'<>]{0,256}[0-9])([^\s\"'<>]{4,256})[ \t]{0,8}(?=[\r\n\"]|\Z)"),
        re.compile(r"\benable[ ]password[ ](?=[^\s\"'<>]{0,256}[0-9])([^\s\"'<>]{4,256})[ \t]{0,8}(?=[\r\n\"]|\Z)"),
        re.compile(r"login[ ]\S{1,128}\s{1,8}password[ ]([^\s\"'<>]{3,256})"),
        re.compile(
            r"(?:^|[\n\"])[ \t]{0,8}password[ ](?=[^\s\"'<>]{0,256}[0-9])([^\s\"'<>]{1,512})[ \t]{0,8}(?=[\r\n\"]|\Z)"
        ),
        re.compile(
            r"(?:setx|ENV|ARG)[ ](?i:\w{0,40}password)[ ][\"']?([^\s\"'$<>{}=]{3,256})"
            r"[\"']?[ \t]{0,8}(?=[\r\n\"]|\Z)"
        ),
    ),
    "mysql": (re.compile(r"mysql(?:dump|admin|import)?[ ][^\n|;]{0,120}?(?<=\s)-p[\"']?([^\s\"'$<>]{3,256})"),),
    " login ": (
        re.compile(r"(?:docker|podman|registry|az)[ ]login[ ][^\n|;]{0,120}?(?<=\s)-p[ ][\"']?([^\s\"'$<>]{3,256})"),
    ),
    "@tcp(": (re.compile(r"[\w.-]{1,64}:([^\s:@/\"'<>]{1,256})@tcp\("),),
    "thin:": (re.compile(r"thin:\w{1,64}/([^\s@\"'<>]{1,256})@"),),
    "identified by": (
        re.compile(r"identified by[ ](?:password[ ])?'([^'\n<>]{1,256})'", re.IGNORECASE),
        re.compile(r'identified by[ ]"(?=[\w.-]{0,256}(?:[0-9]|[^\w\s".-]))([^"\s<>]{3,256})"', re.IGNORECASE),
        re.compile(r'(?:user|role|grant)[ ][^\n;]{1,128}?identified by[ ]"([^"\n<>]{1,256})"', re.IGNORECASE),
        re.compile(
            r"(?:user|role|grant)[ ][^\n;]{1,128}?identified by[ ](?=[^\s;]{0,256}[0-9])([^\s\"'<>;,$&:]{3,256})",
            re.IGNORECASE,
        ),
    ),
    # Cisco: a digit before the value says how it is written.
    "secret ": (
        re.compile(
            r"(?:^|[\n\"])[ \t]{0,8}(?:enable|username[ ]\S{1,64}(?:[ ]privilege[ ][0-9]{1,2})?)[ ]secret[ ]"
            r"(?:level[ ][0-9]{1,2}[ ])?(?:[0-9][ ])?"
            r"(?=[^\s\"'<>]{0,256}[0-9])([^\s\"'<>]{3,256})[ \t]{0,8}(?=[\r\n\"]|\Z)"
        ),
    ),
    "config": (
        re.compile(
            r"\b(?:configure|config)[ ](?:set[ ]|--?[a-z]{1,12}[ ]){0,3}[\w.:/-]{0,64}?"
            r"(?i:passw(?:or)?d|secret(?:_access)?(?:_key)?|token|api_?key)[ ][\"']?([^\s\"'$<>-][^\s\"'$<>]{3,512})"
        ),
    ),
    "chpasswd": (
        re.compile(
            r"(?:echo|printf)[ ](?:-\w{1,3}[ ])?[\"']?[\w.-]{1,64}:([^\s\"'|$<>\\]{3,256})[^|\n]{0,16}"
            r"\|[^|\n]{0,64}chpasswd"
        ),
        re.compile(r"chpasswd[^|\n<]{0,32}<<<[ ]?[\"']?[\w.-]{1,64}:([^\s\"'|$<>]{3,256})"),
    ),
    "--stdin": (
        re.compile(
            r"(?:echo|printf)[ ](?:-\w{1,3}[ ])?[\"']?([^\s\"'|$<>\\]{3,256})[^|\n]{0,16}"
            r"\|[^|\n]{0,64}passwd[ ][^|\n]{0,32}--stdin"
        ),
    ),
    "redis-cli": (re.compile(r"redis-cli[ ](?:[^\n|;]{0,120}?[ ])?-a[ ][\"']?([^\s\"'$<>]{3,256})"),),
    "sqlcmd": (re.compile(r"sqlcmd[ ](?:[^\n|;]{0,120}?[ ])?-P[ ]?[\"']?([^\s\"'$<>]{3,256})"),),
    "zip ": (re.compile(r"\b(?:un)?zip[ ](?:[^\n|;]{0,120}?[ ])?-P[ ]?[\"']?([^\s\"'$<>]{3,256})"),),
    "7z": (re.compile(r"\b7za?[ ](?:[^\n|;]{0,120}?[ ])-p[\"']?([^\s\"'$<>]{3,256})"),),
    "ldap": (
        re.compile(
            r"ldap(?:search|modify|add|delete|whoami|passwd)[ ](?:[^\n|;]{0,120}?[ ])?"
            r"-w[ ]?[\"']?([^\s\"'$<>]{3,256})"
        ),
    ),
    ":5432:": (
        re.compile(r"(?:^|[\n\"])[\w.*-]{1,128}:5432:[\w*-]{1,64}:[\w*-]{1,64}:([^\s:\"'<>]{3,256})(?=[\s\"]|\Z)"),
    ),
}


def command_lines(text: str, lower: str) -> Iterator[Span]:
    """The passwords alone; `lower` is the text in small letters."""
    if "://" in text:
        yield from (_password(match) for match in _URL.finditer(text) if not is_reference(match[1]))
    if "curl" in lower:
        yield from (_password(match) for match in _CURL.finditer(text) if not is_reference(match[1]))
    for form in itertools.chain.from_iterable(_COMMANDS[word] for word in _COMMANDS if word in lower):
        yield from (_password(match) for match in form.finditer(text) if not is_reference(match[1]))


def _password(match: re.Match[str]) -> Span:
    return Span(*match.span(1), Kind.PASSWORD, match[1])
