"""What of a record's headers a trace is continued by."""

import pytest
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from streams.assembly.traces import CallTraces
from streams.runtime import tracing

HEADER = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.mark.parametrize(
    ("header", "taken"),
    [
        (HEADER, HEADER),
        (f"cc{HEADER[2:]}-anna@example.com", HEADER),
        (None, None),
        ("", None),
        ("anna@example.com", None),
        (f"00-{'0' * 32}-b7ad6b7169203331-01", None),
    ],
)
def test_of_a_header_the_ids_alone_are_taken(header: str | None, taken: str | None) -> None:
    exporter = InMemorySpanExporter()
    with tracing.traced("record", exporter):
        assert tracing.traceparent_of(header) == taken
        tracing.consumed("record", [tracing.traceparent_of(header)], 1)
    spans = exporter.get_finished_spans()
    assert [span.name for span in spans] == (["record"] if taken else [])
    assert all(span.parent is not None and f"{span.parent.trace_id:032x}" in HEADER for span in spans)


def test_where_nothing_is_traced_no_trace_is_continued() -> None:
    assert tracing.traceparent_of(HEADER) is None


def test_the_events_of_a_call_bear_its_trace_and_others_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streams.assembly.traces._MOST", 2)
    traces = CallTraces()
    traces.add("untraced", None)
    for receipt in ("first", "second", "third"):
        traces.add(receipt, HEADER)
    bears = {name: bool(traces.headers_of(name)) for name in ("first", "second", "third", "untraced", None)}
    assert bears == {"first": False, "second": True, "third": True, "untraced": False, None: False}
    assert traces.headers_of("third") == (("traceparent", HEADER.encode()),)
