"""The limits of each principal at the gateway: refusals, their count, and the log of whose they were.

An error of the limits themselves must not take the gateway from production: the request passes, and is counted.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import structlog
from prometheus_client import CollectorRegistry, Counter
from starlette.types import Scope

from daemon.serving.call_metrics import Passage
from daemon.serving.refusals import Refused
from daemon.serving.requests import TOO_LARGE
from streams.access.limits import Limit, Limiter, Reached
from streams.access.settings import LimitSettings
from streams.access.tokens import Caller
from streams.runtime.tracebacks import where_raised

log = structlog.get_logger()

_USAGE = "ratchet.usage"
REACHED = "rate_limit_exceeded"
_MEANING = {
    Limit.REQUESTS: "{} requests per minute",
    Limit.TOKENS: "{} tokens per minute",
    Limit.IN_FLIGHT: "{} requests at once",
}
# In English text, as OpenAI and Anthropic say for a rough count.
_BYTES_PER_TOKEN = 4


@dataclass(slots=True)
class Usage:
    """The tokens that one request took, which is noted when they are known."""

    tokens: int = 0

    def note(self, passage: Passage, request: bytes) -> None:
        """Take them from the inference server's own count; a streamed reply without one is estimated.

        An event of such a reply counts as a token: otherwise no limit would hold a client that asks for no count.
        """
        if passage.input_tokens is not None or passage.output_tokens is not None:
            self.tokens = (passage.input_tokens or 0) + (passage.output_tokens or 0)
        elif passage.events:
            self.tokens = len(request) // _BYTES_PER_TOKEN + passage.events


def usage_of(scope: Scope) -> Usage:
    """The usage of a request that `GatewayLimits` let pass."""
    usage = scope[_USAGE]
    assert isinstance(usage, Usage)
    return usage


class LimitCounts:
    """Counters of refusals and of failures; in no registry they are not exposed."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self.refused = Counter(
            "ratchet_gateway_limited",
            "Requests that were refused because their principal reached a limit, or that were too large, by limit.",
            ["reason"],
            registry=registry,
        )
        for limit in Limit:
            self.refused.labels(reason=limit.value)
        self.failed = Counter(
            "ratchet_gateway_limiter_failures",
            "Requests that passed because the limits themselves failed.",
            registry=registry,
        )


@dataclass(slots=True, eq=False)
class GatewayLimits:
    """The limits by principal; requests without a token have one in common, and Ratchet's own processes have none.

    `most_bytes` is the most that any request may have.
    """

    settings: LimitSettings
    most_bytes: int
    counts: LimitCounts = field(default_factory=LimitCounts)
    limiter: Limiter = field(init=False)

    def __post_init__(self) -> None:
        self.limiter = Limiter(self.settings)

    @contextmanager
    def within(self, caller: Caller | None, scope: Scope) -> Iterator[None]:
        """Let a request pass that its principal's limits allow. What `usage_of(scope)` notes counts when it ends.

        Raises `Refused` with 429 for any other. Counts one that is found too large meanwhile.
        """
        usage = scope[_USAGE] = Usage()
        if caller is not None and caller.is_internal:
            yield
            return
        principal = None if caller is None else caller.principal
        began = self._begin(principal, caller)
        try:
            yield
        except Refused as error:
            if error.code == TOO_LARGE:
                self._note(Limit.SIZE, caller)
            raise
        finally:
            if began:
                with self._passing():
                    self.limiter.end(principal, usage.tokens)

    def bytes_of(self, caller: Caller | None) -> int:
        """The most bytes that a request of the caller may have."""
        if caller is None or not caller.is_internal:
            with self._passing():
                own = self.settings.of(None if caller is None else caller.principal).request_bytes
                return min(own or self.most_bytes, self.most_bytes)
        return self.most_bytes

    def _begin(self, principal: str | None, caller: Caller | None) -> bool:
        reached: Reached | None = None
        with self._passing():
            reached = self.limiter.begin(principal)
            if reached is None:
                return True
        if reached is not None:
            self._note(reached.limit, caller)
            whose = "requests without a token" if principal is None else f"the principal {principal:.100}"
            raise Refused(
                429,
                f"{whose} may make {_MEANING[reached.limit].format(reached.most)} and has reached that; ask again in "
                f"{reached.retry_after_s} s, or have the operator raise access.limits",
                REACHED,
                {"Retry-After": str(reached.retry_after_s)},
            )
        return False

    def _note(self, limit: Limit, caller: Caller | None) -> None:
        self.counts.refused.labels(reason=limit.value).inc()
        principal, token = ("", "") if caller is None else (caller.name, caller.id)
        log.warning("a request was over a limit", limit=limit.value, principal=principal, token=token)

    @contextmanager
    def _passing(self) -> Iterator[None]:
        """Count what goes wrong inside, and go on."""
        try:
            yield
        except Exception as error:  # noqa: BLE001 - whatever it is, the request must pass
            self.counts.failed.inc()
            log.error("the limits failed, and the request passes", exception=where_raised(error))
