"""What goes wrong in a soak, when and for how long: drawn from a seed alone, so that a soak can be repeated. Pure."""

import random
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from enum import StrEnum


class Kind(StrEnum):
    """Kinds of faults; all but `KILL` end after a while."""

    KILL = "kill"
    STOP = "stop"
    DISK = "disk full"
    CUT = "network cut"
    SLOW = "network slow"
    CLOCK = "clock"
    NODE = "node lost"


ROLES = ("record", "assemble", "branch", "serve", "learn")
SUPERVISOR, ENGINE, BROKER, SANDBOX = "supervisor", "inference", "broker", "branch sandboxes"
KILLED = (*ROLES, ENGINE, BROKER, SANDBOX, SUPERVISOR)
STOPPED = (*ROLES, ENGINE, BROKER, SANDBOX)
# Seconds, from and to.
_PAUSE_S = (5.0, 20.0)
_LASTS_S = {
    Kind.KILL: (0.0, 0.0),
    Kind.STOP: (2.0, 15.0),
    Kind.DISK: (5.0, 20.0),
    Kind.CUT: (1.0, 10.0),
    Kind.SLOW: (10.0, 30.0),
    Kind.CLOCK: (10.0, 30.0),
    Kind.NODE: (5.0, 20.0),
}
_JUMPS_S = (-7200, -600, -30, 30, 600, 7200)


@dataclass(frozen=True, slots=True)
class Fault:
    """`pause_s` after the last fault was overcome, `kind` happens to `target` for `lasts_s` seconds.

    `size` is by how many seconds a clock jumps, and a number to choose by where there are several of the target.
    """

    kind: Kind
    target: str
    pause_s: float
    lasts_s: float
    size: int

    @property
    def name(self) -> str:
        return f"{self.kind} {self.target}".strip()


def drawn(seed: int, kinds: Collection[Kind], targets: Collection[str] = KILLED) -> Iterator[Fault]:
    """An infinite iterator of faults: rounds in random order, in each of which every kind comes once for every target.

    Raises `ValueError` where there is nothing to draw from.

    >>> first = next(drawn(7, [Kind.KILL]))
    >>> first == next(drawn(7, [Kind.KILL]))
    True
    """
    chance = random.Random(seed)
    deck = [
        *((Kind.KILL, target) for target in KILLED if target in targets),
        *((Kind.STOP, target) for target in STOPPED if target in targets),
        *((kind, "") for kind in Kind if kind not in (Kind.KILL, Kind.STOP)),
    ]
    deck = [card for card in deck if card[0] in kinds]
    if not deck:
        raise ValueError("no kind of fault is possible here")
    while True:
        for kind, target in chance.sample(deck, len(deck)):
            yield Fault(
                kind=kind,
                target=target,
                pause_s=round(chance.uniform(*_PAUSE_S), 1),
                lasts_s=round(chance.uniform(*_LASTS_S[kind]), 1),
                size=chance.choice(_JUMPS_S) if kind is Kind.CLOCK else chance.randrange(1000),
            )
