"""The traces of captured calls, from their records to the events that are made of them. In memory, best effort."""

from collections import OrderedDict

from streams.runtime import tracing

_MOST = 10_000


class CallTraces:
    """The `traceparent` of calls by receipt; the oldest give way.

    A restart loses them: the events of calls that were open then begin no span at the record role.
    """

    def __init__(self) -> None:
        self._known: OrderedDict[str, str] = OrderedDict()

    def add(self, receipt: str, traceparent: str | None) -> None:
        if traceparent is not None:
            self._known[receipt] = traceparent
            if len(self._known) > _MOST:
                self._known.popitem(last=False)

    def headers_of(self, receipt: str | None) -> tuple[tuple[str, bytes], ...]:
        """The headers of an event that was made of the call."""
        known = self._known.get(receipt or "")
        return () if known is None else ((tracing.TRACEPARENT, known.encode()),)
