"""The reasons for which a model call cannot be read as a whole request and a whole reply."""

from enum import StrEnum

from ratchet_client.errors import RatchetError


class Absence(StrEnum):
    """The reason for which a model call has no content that can be read."""

    NOT_CAPTURED = "not captured"
    FAILED = "failed"
    MASKED = "masked"
    CUT_OFF = "cut off by a limit"
    INCOMPLETE = "incomplete"
    NOT_UNDERSTOOD = "not understood"

    @property
    def breaks_episodes(self) -> bool:
        """True where something was said in the call; then what is left of its conversation is not all of it."""
        return self not in (Absence.NOT_CAPTURED, Absence.FAILED)


class AbsentContentError(RatchetError):
    """A captured call that is not whole, or not understood: `absence` says which, the text says where it shows."""

    def __init__(self, absence: Absence, message: str) -> None:
        super().__init__(message)
        self.absence = absence
