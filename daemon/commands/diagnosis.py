"""The result of one check of `ratchet doctor`."""

from enum import StrEnum

from ratchet_client.settings import FrozenModel


class Health(StrEnum):
    """The result of a check. Ratchet does not run with an error; a warning is a risk that somebody should know of."""

    OK = "ok"
    WARNING = "warning"
    ERROR = "error"


class Diagnosis(FrozenModel):
    """A check, what it found, and what to do about it; `remedy` is empty where nothing is to be done."""

    name: str
    status: Health
    message: str
    remedy: str = ""
