"""Says who asks, where the settings give principals tokens."""

import hmac
from collections.abc import Mapping

from daemon.serving.headers import RawHeaders, find
from daemon.serving.refusals import Refused
from streams.settings import Secret


class Access:
    """The bearer tokens by principal. Without any, every request is let in, and none has a principal."""

    def __init__(self, tokens: Mapping[str, Secret]) -> None:
        self._tokens = {name: token.get_secret_value().encode() for name, token in tokens.items()}

    @property
    def is_open(self) -> bool:
        return not self._tokens

    def principal(self, headers: RawHeaders) -> str | None:
        """The principal whose token came, as OpenAI's clients or as Anthropic's send it. Raises `Refused` with 401."""
        if not self._tokens:
            return None
        scheme, _, token = (find(headers, b"authorization") or "").partition(" ")
        given = (token.strip() if scheme.lower() == "bearer" else "", (find(headers, b"x-api-key") or "").strip())
        found = None
        for principal, secret in self._tokens.items():
            # Every token is compared, so that the time taken tells nothing.
            matches = [hmac.compare_digest(each.encode(), secret) for each in given]
            if True in matches:
                found = principal
        if found is None:
            raise Refused(
                401,
                "the gateway does not know this token; send one of serving.tokens as the API key",
                "invalid_api_key",
                {"WWW-Authenticate": "Bearer"},
            )
        return found
