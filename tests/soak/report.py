"""What a soak did and found, as data and as a page of Markdown."""

from collections import defaultdict
from collections.abc import Sequence
from statistics import median

from pydantic import BaseModel, ConfigDict

from tests.soak.growth import Growth

JUDGED_FROM_S = 300.0
"""A life that was measured for less says nothing: caches still fill."""
RSS_SHARE, RSS_LEAST_MIB = 0.15, 24.0
HANDLES_SHARE, HANDLES_LEAST = 0.15, 12.0


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True)


class FaultRecord(_Frozen):
    """A fault: when it began, in seconds of the soak, and how long it lasted.

    `answers_s` are the seconds from its end until the gateway, the store and all roles answered again, and `stored_s`
    until all that had been acknowledged by its end was stored. None where that did not come in time.
    """

    at_s: float
    fault: str
    lasts_s: float
    detail: str
    answers_s: float | None
    stored_s: float | None

    @property
    def recovery_s(self) -> float | None:
        return None if self.answers_s is None or self.stored_s is None else max(self.answers_s, self.stored_s)


class Flatness(_Frozen):
    """How a figure of a process grew: `growth` is that of the longest life, by the slope, and `limit` what it may be.

    `flat` is None where the process lived too shortly to say.
    """

    process: str
    figure: str
    per_hour: float | None
    median: float | None
    measured_s: float
    growth: float | None
    limit: float | None
    flat: bool | None

    @classmethod
    def of(cls, process: str, figure: str, found: Growth | None, share: float, least: float) -> "Flatness":
        """Judge `found`: it may grow by `share` of its median, and by `least` in any case."""
        if found is None:
            nothing = {"per_hour": None, "median": None, "growth": None, "limit": None, "flat": None}
            return cls(process=process, figure=figure, measured_s=0.0, **nothing)
        limit = max(share * found.median, least)
        return cls(
            process=process,
            figure=figure,
            per_hour=found.per_hour,
            median=round(found.median, 1),
            measured_s=found.longest_s,
            growth=round(found.total(), 2),
            limit=round(limit, 1),
            flat=found.total() <= limit if found.longest_s >= JUDGED_FROM_S else None,
        )


class Finding(_Frozen):
    """One thing that was looked at: `holds`, or what was found instead."""

    what: str
    holds: bool
    detail: str = ""


class SoakReport(_Frozen):
    """The whole of a soak. `left_out` says of kinds of faults why they were not possible.

    `answers`, `failures` and `verdicts` are of the agents; `missing_…` counts what is excused by the documented limits.
    """

    seed: int
    minutes: float
    seconds: float
    interrupted: bool
    kafka: str
    conditions: str
    load: tuple[float, float, float]
    starts: int
    events: int
    stored: int
    answers: int
    failures: int
    verdicts: int
    missing_events: int
    missing_calls: int
    promoted: int
    served: tuple[str, ...]
    faults: tuple[FaultRecord, ...]
    left_out: dict[str, str]
    flatness: tuple[Flatness, ...]
    findings: tuple[Finding, ...]

    @property
    def well(self) -> bool:
        return all(finding.holds for finding in self.findings)

    def markdown(self, picture: str) -> str:
        """The page; `picture` is the name of the file of the plot."""
        return "\n".join(
            [
                f"# Soak of {self.seconds / 60:.0f} minutes: {'well' if self.well else 'not well'}",
                "",
                f"Seed {self.seed}, over {self.kafka}, on {self.conditions}; load averages at the end "
                + ", ".join(f"{each:.1f}" for each in self.load)
                + f". `ratchet run` was started {self.starts} times."
                + (" It was interrupted." if self.interrupted else ""),
                "",
                f"Producers were acknowledged {self.events} records, agents got {self.answers} replies "
                f"({self.failures} requests failed and were made again) and {self.verdicts} acknowledgements of "
                f"feedback; {self.stored} events are stored. By the documented limits {self.missing_events} records "
                f"and {self.missing_calls} calls are missing. {self.promoted} adapters were promoted.",
                "",
                "## Verdicts",
                "",
                *_table(("", "", ""), [(_mark(each.holds), each.what, each.detail) for each in self.findings]),
                "",
                "## Faults",
                "",
                *_table(
                    ("fault", "count", "answers again: median s", "longest s", "stored: median s", "longest s"),
                    _summed(self.faults),
                ),
                *(["", *(f"Left out: {kind}, since {why}" for kind, why in self.left_out.items())]),
                "",
                "Seconds run from the end of a fault: until the gateway, the store and all roles answer, and until all "
                "that was acknowledged by then is stored.",
                "",
                "## Memory and handles",
                "",
                *_table(
                    ("process", "figure", "median", "slope per hour", "measured s", "growth", "limit", "flat"),
                    [_row(each) for each in self.flatness],
                ),
                "",
                "The slope is the median of those between any two samples of one life, after its warm-up; growth is "
                "what it makes of the longest life. Memory is in MiB.",
                "",
                f"![Memory and handles]({picture})",
                "",
                "## Each fault",
                "",
                *_table(
                    ("at s", "fault", "lasts s", "answers s", "stored s", ""),
                    [
                        (each.at_s, each.fault, each.lasts_s, _or(each.answers_s), _or(each.stored_s), each.detail)
                        for each in self.faults
                    ],
                ),
                "",
            ]
        )


def _mark(holds: bool) -> str:
    return "yes" if holds else "NO"


def _or(value: float | None) -> object:
    return "not in time" if value is None else value


def _row(each: Flatness) -> tuple[object, ...]:
    if each.median is None:
        return each.process, each.figure, "", "", "", "", "", "too short"
    flat = "too short" if each.flat is None else _mark(each.flat)
    return each.process, each.figure, each.median, each.per_hour, round(each.measured_s), each.growth, each.limit, flat


def _summed(faults: Sequence[FaultRecord]) -> list[tuple[object, ...]]:
    by_name = defaultdict[str, list[FaultRecord]](list)
    for fault in faults:
        by_name[fault.fault].append(fault)
    return [
        (name, len(each), *_of(each, "answers_s"), *_of(each, "stored_s")) for name, each in sorted(by_name.items())
    ]


def _of(faults: Sequence[FaultRecord], figure: str) -> tuple[object, object]:
    seconds = [getattr(fault, figure) for fault in faults]
    known = [each for each in seconds if each is not None]
    longest = "not in time" if len(known) < len(seconds) else max(known)
    return (round(median(known), 1) if known else ""), longest


def _table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> list[str]:
    lines = [head, ["---"] * len(head), *rows]
    return [f"| {' | '.join(str(cell).replace('|', '/') for cell in line)} |" for line in lines]
