"""The log as JSON: each line is an object, also those of libraries, and says of which request and trace it is."""

import json
import subprocess
import sys

_PROCESS = """
import logging, sys
import structlog, uvicorn
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind
from streams.runtime import tracing
from streams.runtime.http_server import HttpServer
from streams.runtime.logs import LogSettings, log_to_stderr

log_to_stderr(LogSettings(format=sys.argv[1], level="info"))
HttpServer(uvicorn.Config(lambda: None, log_level="warning"))
log = structlog.get_logger()
log.debug("not told")
with structlog.contextvars.bound_contextvars(request_id="request-7"), tracing.traced("serve", InMemorySpanExporter()):
    with tracing.span("GET /", SpanKind.SERVER, {}):
        log.info("told", text="of\\nlines")
logging.getLogger("aiokafka").warning("a broker is %s", "away")
logging.getLogger("aiokafka").info("not told")
try:
    secret = "zanzibar-4711"
    raise ValueError("wrong")
except ValueError:
    logging.getLogger("uvicorn.error").exception("it failed")
"""


def logged(style: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", _PROCESS, style], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout == ""
    return done.stderr.splitlines()


def test_every_line_is_an_object() -> None:
    told, warned, failed = map(json.loads, logged("json"))
    assert told.pop("timestamp").endswith("Z")
    assert len(told.pop("trace_id")) == 32
    assert told == {"event": "told", "level": "info", "text": "of\nlines", "request_id": "request-7"}
    assert (warned["event"], warned["level"], warned["logger"]) == ("a broker is away", "warning", "aiokafka")
    assert (failed["event"], failed["level"]) == ("it failed", "error")
    assert "ValueError: wrong" in failed["exception"]
    # The source line is told, and no value.
    assert failed["exception"].count("zanzibar-4711") == 0


def test_for_people_there_are_lines_of_text() -> None:
    first, *_ = logged("console")
    assert "told" in first
    assert "request_id=request-7" in first
    assert not first.startswith("{")
