"""The ledgers of a soak beside the store: what must be there, what may be missing, and what is. Pure."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

_CAPTURED_WITHIN_S = 30.0


@dataclass(frozen=True, slots=True)
class Answer:
    """A reply that an agent got whole: its event's id, when it was there (Unix time), and the model that gave it."""

    event: str
    at: float
    served: str


@dataclass(frozen=True, slots=True)
class Calls:
    """What the agents noted. `verdicts` has of each acknowledged feedback its event's id, and its call's.

    `failures` counts requests without a whole reply.
    """

    answers: tuple[Answer, ...] = ()
    verdicts: tuple[tuple[str, str], ...] = ()
    failures: int = 0

    @classmethod
    def of(cls, lines: Sequence[str]) -> "Calls":
        """Read the lines of a ledger.

        >>> Calls.of(["answer e1 5.0 base", "failed", "verdict v1 e1"])
        Calls(answers=(Answer(event='e1', at=5.0, served='base'),), verdicts=(('v1', 'e1'),), failures=1)
        """
        words = [line.split(" ") for line in lines]
        return cls(
            answers=tuple(Answer(each[1], float(each[2]), each[3]) for each in words if each[0] == "answer"),
            verdicts=tuple((each[1], each[2]) for each in words if each[0] == "verdict"),
            failures=sum(each[0] == "failed" for each in words),
        )

    def recorded_before(self, moment: float) -> frozenset[str]:
        """The calls that were answered so long before `moment` (Unix time) that the log must have them."""
        return frozenset(each.event for each in self.answers if each.at < moment - _CAPTURED_WITHIN_S)


@dataclass(slots=True)
class Excused:
    """What may be missing, by the documented limits of the guarantee.

    `events` were in an embedded broker's log, which is memory, when it was killed, and not stored yet. `kills` are the
    times (Unix) at which a gateway was killed: of what it held, calls answered within half a minute before may be lost.
    """

    events: set[str] = field(default_factory=set)
    kills: list[float] = field(default_factory=list)

    def excuses(self, answer: Answer) -> bool:
        return answer.event in self.events or any(
            kill - _CAPTURED_WITHIN_S <= answer.at <= kill + 1.0 for kill in self.kills
        )


@dataclass(frozen=True, slots=True)
class Account:
    """Counts of a soak, and in `lost` the ids of what is missing without an excuse.

    `missing_events` and `missing_calls` are missing with one. Feedback on a call that is missing has nothing to be on,
    and is not expected.
    """

    events: int
    calls: int
    verdicts: int
    missing_events: int
    missing_calls: int
    lost: tuple[str, ...]


def account(events: Collection[str], calls: Calls, stored: Collection[str], excused: Excused) -> Account:
    """Compare what was acknowledged with `stored`, the ids of all stored events.

    >>> calls = Calls((Answer("a", 1.0, "base"), Answer("b", 99.0, "base")), (("v", "a"), ("w", "b")))
    >>> account({"e", "f"}, calls, {"f"}, Excused(events={"e"}, kills=[100.0])).lost
    ('a',)
    """
    missing = set(events) - set(stored)
    unanswered = [answer for answer in calls.answers if answer.event not in stored]
    lost_calls = [answer.event for answer in unanswered if not excused.excuses(answer)]
    # Feedback waits in the log for its call, and goes down with it.
    silent = [verdict for verdict, call in calls.verdicts if call in stored and verdict not in stored]
    lost_verdicts = [verdict for verdict in silent if verdict not in excused.events]
    return Account(
        events=len(events),
        calls=len(calls.answers),
        verdicts=len(calls.verdicts),
        missing_events=len(missing & excused.events),
        missing_calls=len(unanswered) - len(lost_calls),
        lost=tuple(sorted((missing - excused.events) | {*lost_calls, *lost_verdicts})),
    )


def strangers(served: Collection[str], promoted: Collection[str], base: str) -> tuple[str, ...]:
    """The names that answered and belong neither to the base model nor to an adapter that was ever promoted.

    A served name ends with the first characters of the adapter's digest.

    >>> strangers({"base", "ratchet-1-abc", "ratchet-2-def"}, {"abcabc"}, "base")
    ('ratchet-2-def',)
    """
    return tuple(
        sorted(
            name
            for name in set(served) - {base}
            if not any(digest.startswith(name.rpartition("-")[2]) for digest in promoted)
        )
    )
