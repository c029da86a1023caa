"""The figures of the assemble role, as its `/status` shows them. Counters are since the start of the process."""

from pydantic import Field

from ratchet_client.messages import Record


class AssemblyStatus(Record):
    """Spans, log records, captured calls and feedback that were read, and the events that were made of them.

    `open` is how many traces and conversations are not complete yet, `open_s` how many seconds the oldest of them has
    been silent, and `waiting_feedback` how much feedback waits for its call. If nothing more comes, the first of
    what is open is complete in `next_settles_s` seconds, and the last in `all_settle_s`.
    """

    open: int = 0
    open_s: int = 0
    next_settles_s: int = 0
    all_settle_s: int = 0
    waiting_feedback: int = 0
    repeated: int = 0
    unreadable: int = 0
    steps: int = 0
    outcomes: int = 0
    without_content: int = 0
    unusable_evaluations: int = 0
    unusable_feedback: int = 0
    superseded: int = 0
    too_large: int = 0
    absences: dict[str, int] = Field(default={}, description="Model calls without content, by the reason.")
    unrecognised: dict[str, int] = Field(
        default={}, description="Spans like model calls in a dialect that is not understood, by scope and operation."
    )
