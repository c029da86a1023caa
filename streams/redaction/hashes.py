"""Password hashes as account files hold them: a weak password can be found from its hash by trying words."""

import re
from collections.abc import Iterator

from streams.redaction.settings import Kind
from streams.redaction.spans import Span

# The forms of crypt(5), of PHC's string format, of Django, and of LDAP (RFC 2307). A second dollar sign, or a backslash
# before each, is a quoted one.
_HASH = re.compile(
    r"(?<![\w$\\])(?:"
    r"(?P<s>\\{0,2}\${1,2})(?:(?:1|5|6|apr1|sha1|md5)(?P=s)(?:rounds=[0-9]{1,9}(?P=s))?[A-Za-z0-9./]{0,16}(?P=s)[A-Za-z0-9./]{20,90}"
    r"|2[abxy]?(?P=s)[0-9]{2}(?P=s)[A-Za-z0-9./]{20,60}"
    r"|(?:argon2(?:id|i|d)|scrypt|pbkdf2[a-z0-9-]{0,10}|y|gy|7)(?P=s)[A-Za-z0-9./=,+$_\\-]{20,512}"
    r"|[PH](?P=s)[A-Za-z0-9./]{31})"
    r"|pbkdf2_sha(?:1|256|512)\$[0-9]{1,9}\$[A-Za-z0-9./]{1,64}\$[A-Za-z0-9+/]{20,128}={0,2}"
    r"|\{(?:S?SHA(?:256|384|512)?|S?MD5)\}[A-Za-z0-9+/]{20,256}={0,2})"
)


def hashes(text: str) -> Iterator[Span]:
    """The whole hash, with its method and its salt."""
    if "$" in text or "}" in text:
        for match in _HASH.finditer(text):
            yield Span(*match.span(), Kind.PASSWORD, match[0])
