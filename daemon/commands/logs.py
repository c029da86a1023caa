"""The log of a process of the command line: on stderr, so that stdout has results alone. Its texts are printable."""

from daemon.printable import printable_entry
from streams.runtime.logs import LogSettings, log_to_stderr


def log_as(settings: LogSettings) -> None:
    """Log as the settings say."""
    log_to_stderr(settings, printable_entry)
