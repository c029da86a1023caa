"""Values that stand where a secret would and are none: variables, templates, paths of files, placeholders, code."""

import re

_NOTHING = re.compile(
    r"(?:none|null|nil|true|false|undefined|required|optional|string|str|bytes|int|bool|boolean|float|number|object|redacted|changeme|varchar)\b"
    r"|[*.•·_-]+\Z|[xX]+\Z|(?:your|insert|enter|replace|example|placeholder|dummy|todo|tbd)[ _-]"
    r"|(?:obrigat[óo]ri|obligatori|erforderlich|requise?|verplicht|обязательн|必填|必須)\w{0,8}\Z"
    r"|https?/[0-9.]+\Z|(?:compat|files|systemd)\b|(?:todo|tbd|n/a)\Z|\?[a-z ]+\Z",
    re.IGNORECASE,
)
# A default is a value: `${DB_PASSWORD:-hunter2}`, `{{ .Values.password | default "hunter2" }}`.
_TEMPLATE = re.compile(
    r"""(?:\$?\{\{(?![^{}]*\b(?:default|or)\b[^{}"']{0,8}["'][^{}"']{3,}["'])[^{}]*\}\}|[$#%]\{(?![^{}]*:-)[^{}]*\}"""
    r"""|<%[^%]*%>|\{%[^%]*%\}|\$\([^()]*\)|(?:<[^<>]*>)+|\[[a-z _-]+\]|\{[a-z_]\w*\}|__\w+__|@@?\w+@@?|%\w+%"""
    r"""|\$?\[\[[^\[\]]*\]\]|\$[A-Za-z_][\w:]*-?|%[sd]|%\(\w+\)s|![A-Za-z]+|\*[A-Za-z_]\w*)+\Z""",
    re.IGNORECASE,
)
_REFERENCE = re.compile(
    r"(?:env|vault|arn|op|ssm|file|awssm|gcpsm|keyring|keychain|secretsmanager|ref\+\w+|kms|sops|https?):"
    r"|projects/[^/]+/secrets/|(?:/|~/|\./|\.\./)[a-z][a-z0-9_.-]*(?:/[a-z0-9][\w.-]*)*\Z|[A-Z]:\\"
    r"|[a-z][a-z_.-]*(?:/[a-z][a-z0-9_.-]*)+\Z"
)
_CODE = re.compile(
    r"(?:[A-Za-z_]\w*\??\.)+[A-Za-z_]\w*\Z|[\w:-]*(?:passw|passphrase|secret|token|api_?key|pwd|credential)(?:[a-z_]*(?:-v?\d{1,2})?\Z|\w*%\Z)",
    re.IGNORECASE,
)
_ALGORITHM = re.compile(
    r"(?=[a-z0-9_./-]{0,16}(?:hmac|sha|rsa|dsa|ed(?:25519|448)|[erhp]s(?:256|384|512)|md5|aes))"
    r"(?>(?:aws|hmac|rsassa|rsa|ecdsa|eddsa|dsa|ed|sha|md|mgf|pss|pkcs|with|and|encryption|es|rs|hs|ps|p|aes|gcm|cbc|v)"
    r"(?:25519|1024|2048|3072|4096|128|192|224|256|384|448|512|521|1_5|[1-5])?[-_./]?)++\Z",
    re.IGNORECASE,
)
_LABEL = re.compile(
    r"(?=.{0,200}(?:passw|secret|passphrase|kennwort))(?=.{0,200}\b(?:enter|your|must|invalid|incorrect|wrong|forgot|reset"
    r"|change|confirm|should|cannot|required|missing|is|the|new|show|hide)\b)",
    re.IGNORECASE,
)
_SNAKE = re.compile(r"[a-z]+(?:_[a-z]+)+\Z")
_PROMPT = re.compile(r"[#$%>]\Z|[\w.-]+@[\w.-]+|\d{4}-\d\d-\d\d|\[")


def is_reference(value: str) -> bool:
    """Return whether the value is a placeholder, or refers to a secret that is kept elsewhere.

    >>> is_reference("${DB_PASSWORD}"), is_reference("/run/secrets/db"), is_reference("hunter2")
    (True, True, False)
    """
    return any(form.match(value) for form in (_NOTHING, _TEMPLATE, _REFERENCE, _CODE, _ALGORITHM))


def is_label(value: str) -> bool:
    """Return whether the text in quotes is what a person reads beside a field, as in `"password": "Your password"`."""
    return " " in value and _LABEL.match(value) is not None


def is_variable(value: str, sign: str, behind: str) -> bool:
    """Return whether a value without quotes is a variable's name: `login(secret=given)`, `password = user_input`."""
    if behind == ")":
        return value.isidentifier() and value.lower() == value and not any(map(str.isdigit, value))
    return _SNAKE.match(value) is not None and (behind in (",", ";") or (" " in sign and "=" in sign))


def is_prompt(value: str) -> bool:
    """Return whether the line after `Password:` is the next one of a terminal rather than an answer."""
    return _PROMPT.match(value) is not None or value[-1:] in "#$%>:"
