"""Secrets that their own form gives away: keys and tokens of known services, JWTs, private keys, and random text.

The forms are those of detect-secrets. Its regular expressions are used and not its `analyze_line`: for GitHub that
yields the prefix alone and for a JWT all but the signature, which is enough for an alarm and too little to replace.
They are tried only around unbroken runs of characters with a digit among them, which prose hardly has; on every text
they would cost more than all else together. OpenAI's is left out, since its time grows with the square of a hostile
text, and the keyword detector, since it takes the rest of the line for the password (see `assignments`).
"""

import base64
import binascii
import re
import string
from collections.abc import Iterator, Sequence

from detect_secrets.plugins.aws import AWSKeyDetector
from detect_secrets.plugins.azure_storage_key import AzureStorageKeyDetector
from detect_secrets.plugins.cloudant import CloudantDetector
from detect_secrets.plugins.discord import DiscordBotTokenDetector
from detect_secrets.plugins.github_token import GitHubTokenDetector
from detect_secrets.plugins.gitlab_token import GitLabTokenDetector
from detect_secrets.plugins.high_entropy_strings import Base64HighEntropyString
from detect_secrets.plugins.ibm_cloud_iam import IbmCloudIamDetector
from detect_secrets.plugins.ibm_cos_hmac import IbmCosHmacDetector
from detect_secrets.plugins.mailchimp import MailchimpDetector
from detect_secrets.plugins.pypi_token import PypiTokenDetector
from detect_secrets.plugins.sendgrid import SendGridDetector
from detect_secrets.plugins.slack import SlackDetector
from detect_secrets.plugins.softlayer import SoftlayerDetector
from detect_secrets.plugins.square_oauth import SquareOAuthDetector
from detect_secrets.plugins.stripe import StripeDetector
from detect_secrets.plugins.telegram_token import TelegramBotTokenDetector
from detect_secrets.plugins.twilio import TwilioKeyDetector

from streams.redaction.settings import Kind
from streams.redaction.spans import Span

_FORMS: tuple[re.Pattern[str], ...] = tuple(
    form
    for plugin in (
        *(AWSKeyDetector, AzureStorageKeyDetector, CloudantDetector, DiscordBotTokenDetector, GitHubTokenDetector),
        *(GitLabTokenDetector, IbmCloudIamDetector, IbmCosHmacDetector, MailchimpDetector, PypiTokenDetector),
        *(SendGridDetector, SlackDetector, SoftlayerDetector, SquareOAuthDetector, StripeDetector),
        *(TelegramBotTokenDetector, TwilioKeyDetector),
    )
    for form in plugin.denylist
)
# What detect-secrets 1.5 does not know: Anthropic, OpenAI's project keys, Google, Hugging Face, GitHub's fine-grained
# tokens, Stripe's test and restricted keys, npm, Slack's app tokens, and others that write xx_ and a secret.
_PREFIXED = re.compile(
    r"(?<![A-Za-z0-9])(?:(?:sk|whsec|hf|xai|gsk|r8|tvly|pplx|nvapi|dckr_pat|github_pat|gh[opsur]|npm|pypi|dop_v1|doo_v1"
    r"|shp[a-z]{2}|sq0[a-z]{3}|xapp|xox[a-z]|glpat|lin_api|ntn|figd|sntry[a-z]|AGE-SECRET-KEY)[-_][A-Za-z0-9_-]{16,}"
    r"|(?:[prs]k_(?:live|test)|secret|key|tok|pat)[-_][A-Za-z0-9]{16,}"
    r"|AKC[A-Za-z0-9]{20,}|AIza[A-Za-z0-9_-]{35}|GOCSPX-[A-Za-z0-9_-]{28}|dapi[0-9a-f]{32})"
)
_RUN = re.compile(r"[A-Za-z0-9+/_=-]{16,}")
_ALPHABET = frozenset(string.ascii_letters + string.digits + "+/_=-")
# A digit of a run has eight of its characters before it, or begins eight. A search for runs took three times as long.
_IN_A_RUN = re.compile(r"[0-9](?:(?<=[A-Za-z0-9+/_=-]{9})|(?=[A-Za-z0-9+/_=-]{7}))")
_DIGIT = re.compile(r"[0-9]")
_IDENTIFIER = re.compile(
    r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}|[\d=_+/-]+|[0-9a-f]{16,128}|[0-9A-F]{16,128}"
)
# Far enough before a run for `aws_secret_access_key = "`, and behind it for the signature of a token of three parts.
_BEFORE, _BEHIND = 48, 64

_JWT = re.compile(r"(?<![\w-])eyJ[\w-]{8,}\.[\w-]{8,}(?:\.[\w-]*){0,3}")
_GOOGLE_OAUTH = re.compile(r"(?<![\w.])ya29\.[\w-]{20,}")
_PEM = re.compile(
    r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----"
    r".*?(?:-----END [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----|\Z)"
    r"|PuTTY-User-Key-File-\d.*",
    re.DOTALL,
)
# Words with a number behind or among them, as `npm-run-all-2`, are a name and no key.
_NAME = re.compile(r"[A-Za-z]+\d?(?:[-_]{1,2}(?:[A-Za-z]{1,12}\d{0,2}|v?\d{1,4}))+")
# Check sums of files in base64: `sha512-…` of npm, `h1:…` of Go, `SHA256:…` of ssh.
# The longest, of SHA-512, has 88 characters.
_DIGEST = re.compile(r"(?<![A-Za-z0-9])sha(?:1|256|384|512)[-=][A-Za-z0-9+/_-]{1,88}={0,2}", re.IGNORECASE)
_DIGEST_BEFORE = re.compile(r"""(?:h1|sha-?(?:1|256|384|512))\\{0,7}["']?[ ]?[:=][ ]?\\{0,7}["']?\Z""", re.IGNORECASE)
_BASE64 = re.compile(r"[A-Za-z0-9+/_-]{20,}={0,2}")
_ENTROPY = Base64HighEntropyString(limit=4.5)  # detect-secrets' own limit
# Two looks, for lookaheads in one would make a long run without capitals cost the square of its length.
_RANDOM = re.compile(r"[A-Za-z0-9+_-]{32,}={0,2}")
_MIXED = (re.compile(r"[0-9]"), re.compile(r"[A-Z]"), re.compile(r"[a-z]"))


def private_keys(text: str) -> Iterator[Span]:
    """Whole blocks of PEM and PuTTY; one without an end reaches to the end of the text."""
    if "PRIVATE KEY" in text or "PuTTY-User-Key" in text:
        for match in _PEM.finditer(text):
            yield Span(*match.span(), Kind.PRIVATE_KEY, match[0])


def jwts(text: str) -> Iterator[Span]:
    """JSON Web Tokens and their encrypted kin (RFC 7515, RFC 7516)."""
    if "eyJ" in text:
        for match in _JWT.finditer(text):
            yield Span(*match.span(), Kind.JWT, match[0])


def runs(text: str) -> list[re.Match[str]]:
    """Unbroken runs of characters that may be keys: with a digit, and neither number, UUID nor hash."""
    found = []
    end = 0
    for digit in _IN_A_RUN.finditer(text):
        if digit.start() < end:
            continue
        start = digit.start()
        while start > end and text[start - 1] in _ALPHABET:
            start -= 1
        if run := _RUN.match(text, start):
            end = run.end()
            if not _IDENTIFIER.fullmatch(run[0]):
                found.append(run)
    return found


def api_keys(text: str, found: Sequence[re.Match[str]]) -> Iterator[Span]:
    """Keys and tokens whose form is that of a known service; `found` are the runs of the text."""
    for run in found:
        for match in _PREFIXED.finditer(run[0]):
            if _DIGIT.search(match[0]) and not _NAME.fullmatch(match[0]):
                start = run.start() + match.start()
                yield Span(start, start + len(match[0]), Kind.API_KEY, match[0])
    for window in _windows(found):
        for form in _FORMS:
            for match in form.finditer(text, *window):
                # An assignment has the secret as its group; other groups are prefixes.
                group = next((group for group in range(1, form.groups + 1) if len(match[group] or "") >= 20), 0)
                yield Span(*match.span(group), Kind.API_KEY, match[group])
    if "ya29." in text:
        for match in _GOOGLE_OAUTH.finditer(text):
            yield Span(*match.span(), Kind.API_KEY, match[0])


def _windows(found: Sequence[re.Match[str]]) -> list[tuple[int, int]]:
    windows: list[tuple[int, int]] = []
    for run in found:
        start, end = max(0, run.start() - _BEFORE), run.end() + _BEHIND
        if windows and start <= windows[-1][1]:
            windows[-1] = (windows[-1][0], end)
        else:
            windows.append((start, end))
    return windows


def random_text(found: Sequence[re.Match[str]]) -> Iterator[Span]:
    """Runs of 32 characters and more, of capitals, small letters and digits, that are more random than names are."""
    for run in found:
        if _DIGEST_BEFORE.search(run.string, max(0, run.start() - 28), run.start()):
            continue
        for match in _RANDOM.finditer(_DIGEST.sub(_slashes, run[0])):
            mixed = all(kind.search(match[0]) for kind in _MIXED)
            if mixed and _ENTROPY.calculate_shannon_entropy(match[0]) > _ENTROPY.entropy_limit:
                start = run.start() + match.start()
                yield Span(start, start + len(match[0]), Kind.HIGH_ENTROPY, match[0])


def _slashes(digest: re.Match[str]) -> str:
    """As many slashes as the check sum has characters, which no random text holds."""
    return "/" * len(digest[0])


def hidden(found: Sequence[re.Match[str]]) -> Iterator[tuple[int, int, str]]:
    """Runs of base64: their place and their decoded text."""
    for run in found:
        match = _BASE64.search(run[0])
        if match and (said := _decoded(match[0])):
            yield run.start() + match.start(), run.start() + match.end(), said


def _decoded(written: str) -> str | None:
    plain = written.rstrip("=").replace("-", "+").replace("_", "/")
    try:
        said = base64.b64decode(plain + "=" * (-len(plain) % 4), validate=True).decode("ascii")
    except (binascii.Error, UnicodeDecodeError):
        return None
    return said if said.isprintable() or "\n" in said else None
