"""The error for what may hide anything; the record role puts such records into quarantine."""

from streams.errors import RatchetError


class UnjudgeableError(RatchetError):
    """A text cannot be cleared of secrets and personal data. The message holds nothing of the text."""
