"""The one exception tree. Every message says what happened, to what, and what to do about it."""

from collections.abc import Sequence


class RatchetError(Exception):
    """Something failed that Ratchet foresaw; the text is fit for an operator's eyes."""


class ConfigurationError(RatchetError):
    """A setting, a file it names or a part of the installation is missing or wrong."""


class BrokerError(RatchetError):
    """The Kafka cluster cannot be reached or refused a request."""


class StoreError(RatchetError):
    """The DuckDB file cannot be opened, or what it holds contradicts the log."""


class SandboxError(RatchetError):
    """A sandbox process died, timed out, or answered what its contract does not allow."""


class DivergedError(SandboxError):
    """A restored state is not the recorded one, so what would follow from it says nothing about the recorded state."""


class StepTimeoutError(SandboxError):
    """What was asked of a sandbox took too long; the process it ran in was killed.

    `before` are the observations of the branches that were done by then.
    """

    def __init__(self, message: str, before: Sequence[object] = ()) -> None:
        super().__init__(message)
        self.before = before


class SandboxDiedError(SandboxError):
    """A sandbox process died of what was asked of it."""


class PolicyError(RatchetError):
    """The inference server cannot be reached or refused a request."""


class TrainingError(RatchetError):
    """A training run could not start or did not produce an adapter."""


class GateError(RatchetError):
    """An evaluation could not be carried out; this is never a verdict."""


class PromotionError(RatchetError):
    """An adapter could not be put into service; what served before still serves."""
