"""The log of a process, on stderr: lines for people, or one JSON object a line for machines.

It is set up before anything is logged, and again when the settings are known. Entries bear the ids of the request, and
of its trace, that they are about.
"""

import logging
import sys
from collections.abc import MutableMapping
from typing import Any, Literal, TypeAlias

import structlog
from opentelemetry.trace import format_trace_id, get_current_span
from pydantic import Field
from structlog.typing import Processor

from ratchet_client.settings import FrozenModel

LogFormat: TypeAlias = Literal["console", "json"]
LogLevel: TypeAlias = Literal["debug", "info", "warning", "error"]
# Uvicorn gives these handlers of their own whenever a server is configured.
_UVICORN = ("uvicorn", "uvicorn.error", "uvicorn.access")


class LogSettings(FrozenModel):
    """Settings of the log of every process."""

    format: LogFormat = Field(
        default="console", description="Lines for people, or one JSON object a line for machines."
    )
    level: LogLevel = Field(default="info", description="What is of this level or above is logged.")


def log_to_stderr(settings: LogSettings, *processors: Processor) -> None:
    """Log as the settings say. `processors` are the last before an entry is rendered."""
    is_json = settings.format == "json"
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.StackInfoRenderer(),
        _add_trace,
        structlog.processors.format_exc_info if is_json else structlog.dev.set_exc_info,
        structlog.processors.TimeStamper(fmt="iso" if is_json else "%Y-%m-%d %H:%M:%S", utc=is_json),
        *processors,
    ]
    people = structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    renderer = structlog.processors.JSONRenderer() if is_json else people
    structlog.configure(
        processors=[*shared, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[settings.level.upper()]),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    if is_json:
        _adopt_libraries(shared, renderer)


def adopt_uvicorn() -> None:
    """Have Uvicorn log as all else does, where that is as JSON. To be called for each server that is configured."""
    if _is_json():
        for name in _UVICORN:
            logging.getLogger(name).handlers.clear()
            logging.getLogger(name).propagate = True


def tell_end(error: str, line: str) -> None:
    """Tell the error that ends this process: by an entry where the log is JSON, or else by the `line` for people."""
    if _is_json():
        structlog.get_logger().error("ended by an error", error=error)
    else:
        print(line, file=sys.stderr)


def _is_json() -> bool:
    return any(isinstance(each.formatter, structlog.stdlib.ProcessorFormatter) for each in logging.getLogger().handlers)


def _adopt_libraries(shared: list[Processor], renderer: Processor) -> None:
    """Have what libraries log, from warnings on, be entries of the same log."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.add_logger_name, *shared],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)


def _add_trace(logger: object, method: str, entry: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    context = get_current_span().get_span_context()
    if context.is_valid:
        entry["trace_id"] = format_trace_id(context.trace_id)
    return entry
