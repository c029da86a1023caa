"""Secrets that source code falls back to where a setting is missing: `os.environ.get("DB_PASSWORD", "hunter22")`."""

import re
from collections.abc import Iterator

from streams.redaction.references import is_label, is_reference
from streams.redaction.secret_keys import names_a_secret
from streams.redaction.settings import Kind
from streams.redaction.spans import Span

_CALL = re.compile(
    r"""(?P<call>(?:env|get|fetch|config|setdefault|property|pop)(?:[._]?[a-z]{1,12}){0,2})\(\s{0,8}["'](?P<name>[\w.:-]{1,64})["']"""
    r"""(?:,\s{0,8}(?:[a-z_]{1,16}\s{0,2}=\s{0,2})?|\)\s{0,3}(?:\|\||\?\?|\?:|or(?=[ ]))\s{0,8}"""
    r"""|\)\.(?:unwrap_or|orElse|getOrElse|unwrap_or_else)\((?:\|\|[ ])?)"""
    r"""(?P<quote>["'])(?P<value>(?:(?!(?P=quote))[^\r\n]){3,512})(?P=quote)""",
    re.IGNORECASE,
)
_SHORT_NAME = re.compile(r"(?:\A|[_.-])(?:pass|pw|secret[_-]?key)\Z", re.IGNORECASE)


def defaults(text: str, lower: str) -> Iterator[Span]:
    """The defaults alone. What consists of letters counts where the environment is asked, and else may be a word."""
    if "pass" not in lower and not any(word in lower for word in ("pw", "secret", "token", "key", "credential")):
        return
    for match in _CALL.finditer(text):
        name, value = match["name"], match["value"]
        if not (names_a_secret(name) or _SHORT_NAME.search(name)) or is_reference(value) or is_label(value):
            continue
        environment = "env" in text[max(0, match.start() - 16) : match.end("call")].lower()
        if " " not in value and (environment or any(map(str.isdigit, value))):
            yield Span(*match.span("value"), Kind.PASSWORD, value)
