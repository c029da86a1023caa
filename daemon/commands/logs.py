"""The log of a process of the command line: on stderr, so that stdout has results alone. Its texts are printable."""

import sys

import structlog

from daemon.printable import printable_entry


def log_from(level: int) -> None:
    """Log what is of `level`, one of `logging`, or above."""
    *before, renderer = (each for each in structlog.get_config()["processors"] if each is not printable_entry)
    structlog.configure(
        processors=[*before, printable_entry, renderer],
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        wrapper_class=structlog.make_filtering_bound_logger(level),
    )
