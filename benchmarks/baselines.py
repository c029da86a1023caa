"""Ratios of benchmarks that were seen before, and a verdict on one that is seen now.

They are kept in `baselines.json`, which `python -m benchmarks.check` reads and, with `--update`, writes. Ratios only:
times say little of another machine.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from enum import StrEnum
from pathlib import Path
from typing import TypeAlias

from pydantic import TypeAdapter, ValidationError

from ratchet_client.errors import ConfigurationError
from ratchet_client.settings import FrozenModel
from streams.runtime.files import write_atomically

BASELINES = Path(__file__).with_name("baselines.json")

# The shares of a ratio that are taken for noise at least: medians of the same code, minutes apart, differ by more than
# three rounds in a row do, and one run does not tell how much.
LEAST_NOISE = 0.1
NOISE_OF_ONE_RUN = 0.2

# Instructions without which products of matrices take another time, as Linux names them.
_TELLING_FLAGS = ("amx_bf16", "amx_int8", "avx2", "avx512_bf16", "avx512_fp16", "avx512_vnni", "avx512f")


class Better(StrEnum):
    """The direction in which a ratio improves: a share of what is possible goes up, a multiple of a cost down."""

    HIGHER = "higher"
    LOWER = "lower"


class Verdict(StrEnum):
    """The outcome of a benchmark, mostly of its ratio beside the baseline."""

    SAME = "within noise"
    BETTER = "better"
    WORSE = "WORSE"
    OTHER_PROCESSOR = "other processor"
    NO_BASELINE = "no baseline"
    NO_RATIO = "no ratio"
    FAILED = "FAILED"


class Baseline(FrozenModel):
    """A ratio of a benchmark with these `arguments`.

    `spread` has the lowest and the highest seen, None where there was one run; `flags` those of the processor, None
    where they were not recorded. `seen` is a day or a month.
    """

    arguments: tuple[str, ...]
    ratio: float
    spread: tuple[float, float] | None = None
    flags: tuple[str, ...] | None = None
    seen: str

    @property
    def noise(self) -> tuple[float, float]:
        """The lowest and the highest ratio that differ from this one by noise alone."""
        least = NOISE_OF_ONE_RUN if self.spread is None else LEAST_NOISE
        low, high = self.spread or (self.ratio, self.ratio)
        return round(min(low, self.ratio * (1 - least)), 3), round(max(high, self.ratio * (1 + least)), 3)


Baselines: TypeAlias = dict[str, Baseline]
_FILE = TypeAdapter(Baselines)


@dataclass(frozen=True, slots=True)
class Measured:
    """The ratio that a benchmark gave with these arguments, None where it has none, and those of its rounds."""

    arguments: tuple[str, ...]
    ratio: float | None
    rounds: Sequence[float] = ()


def judged(measured: Measured, better: Better, baseline: Baseline | None, flags: Sequence[str]) -> Verdict:
    """Compare a ratio with a baseline of the same arguments and of a processor with the same `flags`."""
    if measured.ratio is None:
        return Verdict.NO_RATIO
    if baseline is None or baseline.arguments != measured.arguments:
        return Verdict.NO_BASELINE
    if baseline.flags is not None and baseline.flags != tuple(flags):
        return Verdict.OTHER_PROCESSOR
    low, high = baseline.noise
    if low <= measured.ratio <= high:
        return Verdict.SAME
    return Verdict.BETTER if (measured.ratio > high) == (better is Better.HIGHER) else Verdict.WORSE


def updated(baseline: Baseline | None, measured: Measured, flags: Sequence[str], today: date) -> Baseline:
    """The baseline that `measured` makes; where `baseline` was noisier, its relative noise stays.

    Raises `ValueError` where `measured` has no ratio.
    """
    ratio = measured.ratio
    if ratio is None:
        raise ValueError("a benchmark without a ratio has no baseline: leave it out")
    seen = list(measured.rounds)
    if baseline is not None and baseline.arguments == measured.arguments and baseline.spread is not None:
        seen += [round(ratio * each / baseline.ratio, 3) for each in baseline.spread]
    return Baseline(
        arguments=measured.arguments,
        ratio=ratio,
        spread=(min(seen), max(seen)) if len(seen) > 1 else None,
        flags=tuple(flags),
        seen=today.isoformat(),
    )


def processor_flags() -> tuple[str, ...]:
    """The flags of this processor that ratios depend on, sorted; none where the system does not list them."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return ()
    flags = next((line.partition(":")[2].split() for line in lines if line.startswith("flags")), [])
    return tuple(flag for flag in _TELLING_FLAGS if flag in flags)


def read_baselines(path: Path) -> Baselines:
    """The baselines by the names of their benchmarks. Raises `ConfigurationError` where the file cannot be read."""
    try:
        return _FILE.validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        raise ConfigurationError(
            f"the baselines in {path} cannot be read: {error}. Restore the file from the repository"
        ) from error


def write_baselines(path: Path, baselines: Baselines) -> None:
    """Replace the file; keys are sorted, so that a change shows as one."""
    ordered = {name: baselines[name] for name in sorted(baselines)}
    write_atomically(path, _FILE.dump_json(ordered, indent=2) + b"\n", mode=0o644)
