"""Names of settings: whether what stands under them is a secret, or only says something about one."""

import re

# `secretName`, `password_policy`, `TOKEN_FILE`: the last word of the name says that its value is no secret.
_METADATA = frozenset({
    "name", "names", "ref", "refs", "reference", "policy", "policies", "file", "files", "filename", "path", "paths",
    "dir", "directory", "url", "uri", "link", "type", "types", "kind", "class", "field", "fields", "label", "hint",
    "prompt", "placeholder", "length", "len", "size", "min", "max", "minlength", "maxlength", "count", "limit",
    "attempts", "retries", "rules", "rule", "strength", "score", "manager", "store", "provider", "backend",
    "engine", "env", "var", "variable", "vars", "version", "versions", "expiry", "expires", "expiration", "expired",
    "age", "ttl", "timeout", "date", "time", "at", "on", "changed", "updated", "created", "modified", "rotated",
    "rotation", "rotate", "history", "reset", "resets", "required", "enabled", "disabled", "allowed", "supported",
    "mode", "algorithm", "algo", "encoder", "encoding", "charset", "format", "regex", "pattern", "validator",
    "validation", "error", "errors", "message", "msg", "title", "help", "description", "desc", "icon", "index",
    "column", "col", "selector", "mount", "mounts", "volume", "volumes", "namespace", "ns", "arn", "scanner",
    "scanning", "detection", "form", "page", "view", "screen", "button", "input", "box", "element", "template",
    "status", "state", "strategy", "source", "last", "tries", "grace", "notice", "generator", "stdin", "cmd",
    "command", "script", "set",
})  # fmt: skip
_WORDS = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])")
# What of the word itself stands before the last word of `passwordfile`; and other words that only begin alike.
_REST = re.compile(r"\A(?:ords?|d|ort|phrases?|s)(?=[a-z])")
_OTHER_WORD = re.compile(r"(?:[ao]r(?:y|ies|iat)|ion|ive|(?:ord)?less)", re.IGNORECASE)
_POINTS_TO = re.compile(
    r"(?:existing|pull|tls|cert|ca|public[_-]?key)[_-]?\Z|checksum/\Z|[0-9]{12}:\Z|(?:unexpected|invalid|illegal)[ ]\Z",
    re.IGNORECASE,
)

_NAMES_A_SECRET = re.compile(
    r"(?:passw(?:or)?d|passphrase|pwd|secret|api[_-]?key|access[_-]?key|private[_-]?key|account[_-]?key|authorization"
    r"|(?:access|auth|refresh|bearer|session|api|id|csrf)[_-]?token|credentials?|(?<![A-Za-z])(?:cookie|pin|cvv|cvc))s?\d?\Z",
    re.IGNORECASE,
)


def names_a_secret(key: str) -> bool:
    """Return whether the value under this key of a JSON object is a secret, whatever it looks like.

    >>> names_a_secret("db_password"), names_a_secret("max_tokens"), names_a_secret("existingSecret")
    (True, False, False)
    """
    match = _NAMES_A_SECRET.search(key)
    return match is not None and not points_to_a_secret(key, match.start(), "")


def points_to_a_secret(text: str, start: int, tail: str) -> bool:
    """Return whether the name says something about a secret, or where it is kept.

    `start` is where the word that speaks of a secret begins in `text`; `tail` is what follows it in the same name.

    >>> points_to_a_secret("secretName", 0, "Name"), points_to_a_secret("secret_key", 0, "_key")
    (True, False)
    """
    if _OTHER_WORD.match(tail):
        return True
    words = _WORDS.findall(tail)
    if words and _REST.sub("", words[-1].lower(), count=1) in _METADATA:
        return True
    return _POINTS_TO.search(text, max(0, start - 14), start) is not None
