"""The log of a process of the command line: on stderr, so that stdout has results alone."""

import sys

import structlog


def log_from(level: int) -> None:
    """Log what is of `level`, one of `logging`, or above."""
    structlog.configure(
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        wrapper_class=structlog.make_filtering_bound_logger(level),
    )
