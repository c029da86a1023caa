"""The exceptions of the client, and the root of all of Ratchet's: `streams.errors` draws the whole tree.

Every message says what happened, to what, and what to do about it.
"""


class RatchetError(Exception):
    """Something failed that Ratchet foresaw; the text is fit for an operator's eyes.

    `refused` says, of a client's error, that the server answered and refused: it runs.
    """

    refused: bool = False


class ConfigurationError(RatchetError):
    """A setting, a file it names or a part of the installation is missing or wrong."""


class BrokerError(RatchetError):
    """The Kafka cluster cannot be reached or refused a request."""


class SpoolError(RatchetError):
    """A producer's spool cannot be read or written; events wait in memory."""


class FeedbackError(RatchetError):
    """Feedback was not taken by the gateway. `status` is that of the gateway's answer, None where there was none."""

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.refused = status is not None
