"""How much each principal may ask: token buckets, and requests that are open. The gateway asks it (`GatewayLimits`).

A token bucket (RFC 2697) fills at a steady rate up to what a minute brings, and each request takes out
what it costs. The tokens of a call are known only when it is over, so that bucket may be overdrawn: then the next
request waits until the debt is paid.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum

from streams.access.settings import LimitSettings, PrincipalLimits

_MINUTE_S = 60.0
# When a request that is open now ends, nobody knows.
_IN_FLIGHT_RETRY_S = 1


class Limit(StrEnum):
    """The limits that a request may be refused for."""

    REQUESTS = "requests"
    TOKENS = "tokens"
    IN_FLIGHT = "in_flight"
    SIZE = "size"


@dataclass(frozen=True, slots=True)
class Reached:
    """A limit that a request is over, what it is, and the whole seconds after which another may pass."""

    limit: Limit
    most: int
    retry_after_s: int


class Bucket:
    """What is left of `per_minute`, at times in seconds of one clock. Full at first.

    >>> bucket = Bucket(60, now=0.0)
    >>> bucket.take(61, now=0.0)
    >>> bucket.wait_s(1, now=0.0), bucket.wait_s(1, now=1.5), bucket.wait_s(1, now=2.0)
    (2.0, 0.5, 0.0)
    """

    def __init__(self, per_minute: int, now: float) -> None:
        self._most = float(per_minute)
        self._rate = per_minute / _MINUTE_S
        self._left = self._most
        self._at = now

    def wait_s(self, amount: float, now: float) -> float:
        """The seconds until `amount` is there; 0 where it is."""
        self._left = min(self._most, self._left + max(0.0, now - self._at) * self._rate)
        self._at = now
        return max(0.0, (amount - self._left) / self._rate)

    def take(self, amount: float, now: float) -> None:
        """Take out `amount`, also where less is left."""
        self.wait_s(amount, now)
        self._left -= amount


@dataclass(slots=True)
class _Account:
    """What one principal has left."""

    requests: Bucket | None
    tokens: Bucket | None
    in_flight: int = 0


@dataclass(slots=True)
class Limiter:
    """The limits of one process, by principal; None is that of all requests without a token. For one thread.

    Nothing is kept over a restart, after which each principal has a whole minute's worth again.
    """

    settings: LimitSettings
    clock: Callable[[], float] = time.monotonic
    _accounts: dict[str | None, _Account] = field(default_factory=dict)

    def begin(self, principal: str | None) -> Reached | None:
        """Count a request that begins, and `end` must be called for it; or return the limit that it is over."""
        limits, now = self.settings.of(principal), self.clock()
        account = self._account(principal, limits, now)
        if limits.in_flight and account.in_flight >= limits.in_flight:
            return Reached(Limit.IN_FLIGHT, limits.in_flight, _IN_FLIGHT_RETRY_S)
        if account.tokens is not None and (wait_s := account.tokens.wait_s(1, now)):
            return Reached(Limit.TOKENS, limits.tokens_per_minute, math.ceil(wait_s))
        if account.requests is not None:
            if wait_s := account.requests.wait_s(1, now):
                return Reached(Limit.REQUESTS, limits.requests_per_minute, math.ceil(wait_s))
            account.requests.take(1, now)
        account.in_flight += 1
        return None

    def end(self, principal: str | None, tokens: int = 0) -> None:
        """Count the end of a request that `begin` let pass, and the tokens that it took, prompt and completion."""
        account = self._accounts[principal]
        account.in_flight -= 1
        if account.tokens is not None and tokens:
            account.tokens.take(tokens, self.clock())

    def _account(self, principal: str | None, limits: PrincipalLimits, now: float) -> _Account:
        found = self._accounts.get(principal)
        if found is None:
            requests, tokens = limits.requests_per_minute, limits.tokens_per_minute
            found = self._accounts[principal] = _Account(
                Bucket(requests, now) if requests else None, Bucket(tokens, now) if tokens else None
            )
        return found
