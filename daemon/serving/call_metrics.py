"""Metrics of the calls that pass the gateway: rate, errors and duration, by the name of the adapter that answered.

`passing.py` notes the facts of one call in its `Passage`, `gateway.py` observes them here once the call has ended.
"""

import re
import time
from collections import Counter as Tally
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from daemon.serving.alias import Alias

MOST_ADAPTERS = 8
"""Adapters that have series of their own: those that answered last, and more where there are many groups.

The series of others are removed.
"""

_SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 40, 80, 160, 320)
_FIRST_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
# Within a JSON string its quotes would be escaped, so that no text of a model or an agent is read as a count.
_COUNT = re.compile(rb'(?<!\\)"(prompt|input|completion|output)_tokens"\s*:\s*(\d{1,9})')
_MARK = b'_tokens"'
_EVENT = b"data:"
# More than a name and its number: they may lie in two parts.
_CARRIED = 48
_INPUT = (b"prompt", b"input")


class Failure(StrEnum):
    """The causes for which the inference server gave no whole answer."""

    TIMEOUT = "timeout"
    UNREACHABLE = "unreachable"
    BROKEN_OFF = "broken_off"
    LOST_ADAPTER = "lost_adapter"
    SERVER_ERROR = "server_error"


@dataclass(slots=True)
class Passage:
    """The facts of one call: its beginning, the first part of a streamed reply, its tokens, and how it failed.

    Tokens are what the inference server says they are, None where it does not say; `events` are those of a streamed
    reply. Times are those of `time.monotonic`.

    >>> passage = Passage()
    >>> passage.add(b'{"usage": {"prompt_tokens": 12, "completion_to')
    >>> passage.add(b'kens": 3}}')
    >>> passage.input_tokens, passage.output_tokens
    (12, 3)
    """

    began: float = field(default_factory=time.monotonic)
    first_part: float | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    failure: Failure | None = None
    events: int = 0
    _carried: bytes = b""

    def add(self, part: bytes) -> None:
        """A part of the reply, uncompressed. Of several counts the last is the reply's."""
        self.events += part.count(_EVENT)
        seen = self._carried + part
        if _MARK in seen:
            for name, count in _COUNT.findall(seen):
                if name in _INPUT:
                    self.input_tokens = int(count)
                else:
                    self.output_tokens = int(count)
        self._carried = seen[-_CARRIED:]

    def begin(self) -> None:
        """Note that the first part of a streamed reply is there."""
        if self.first_part is None:
            self.first_part = time.monotonic()


@dataclass(frozen=True, slots=True)
class _Series:
    """The series of one adapter."""

    seconds: Histogram
    first_seconds: Histogram
    input_tokens: Counter
    output_tokens: Counter


class CallMetrics(Collector):
    """The metrics of one serve process. `observe` belongs to the gateway's event loop; `others` are groups' aliases."""

    def __init__(self, alias: Alias, registry: CollectorRegistry, others: Sequence[Alias] = ()) -> None:
        self._aliases = (alias, *others)
        self._most = max(MOST_ADAPTERS, 2 * len(self._aliases))
        self._seconds = Histogram(
            "ratchet_gateway_call_seconds",
            "Duration of the calls that an adapter was asked, until the last byte of the reply.",
            ["served"],
            buckets=_SECONDS,
            registry=registry,
        )
        self._first_seconds = Histogram(
            "ratchet_gateway_first_token_seconds",
            "Time until the first part of a streamed reply.",
            ["served"],
            buckets=_FIRST_SECONDS,
            registry=registry,
        )
        self._tokens = Counter(
            "ratchet_gateway_tokens",
            "Tokens of calls, as the inference server counts them: `input` and `output`.",
            ["served", "kind"],
            registry=registry,
        )
        self._errors = Counter(
            "ratchet_gateway_upstream_errors",
            "Calls that the inference server did not answer, or not to the end, by cause.",
            ["cause"],
            registry=registry,
        )
        for failure in Failure:
            self._errors.labels(cause=failure.value)
        self._of: OrderedDict[str, _Series] = OrderedDict()
        registry.register(self)

    def observe(self, served: str, passage: Passage) -> None:
        """Count a call that ended now."""
        series = self._series(served)
        series.seconds.observe(time.monotonic() - passage.began)
        if passage.first_part is not None:
            series.first_seconds.observe(passage.first_part - passage.began)
        if passage.input_tokens:
            series.input_tokens.inc(passage.input_tokens)
        if passage.output_tokens:
            series.output_tokens.inc(passage.output_tokens)
        if passage.failure is not None:
            self._errors.labels(cause=passage.failure.value).inc()

    def collect(self) -> Iterator[Metric]:
        """The calls in flight; all else registers itself."""
        flying = GaugeMetricFamily(
            "ratchet_gateway_in_flight", "Calls that an adapter answers at this moment.", labels=["served"]
        )
        counts: Tally[str] = Tally()
        for alias in self._aliases:
            counts.update(alias.all_in_flight())
        for served, count in counts.items():
            flying.add_metric([served], count)
        yield flying

    def _series(self, served: str) -> _Series:
        found = self._of.get(served)
        if found is not None:
            self._of.move_to_end(served)
            return found
        if len(self._of) == self._most:
            self._forget(self._of.popitem(last=False)[0])
        self._of[served] = series = _Series(
            self._seconds.labels(served=served),
            self._first_seconds.labels(served=served),
            self._tokens.labels(served=served, kind="input"),
            self._tokens.labels(served=served, kind="output"),
        )
        return series

    def _forget(self, served: str) -> None:
        self._seconds.remove(served)
        self._first_seconds.remove(served)
        for kind in ("input", "output"):
            self._tokens.remove(served, kind)
