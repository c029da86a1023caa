"""Runs benchmarks one after the other and compares their ratios with those of `baselines.json`.

`python -m benchmarks.check [--only NAME …] [--figures] [--update] [--strict] [--json]` prints one table in the end. A
ratio that is worse than its baseline by more than noise, and a benchmark that fails, end in a warning; with `--strict`
in exit status 1. `--figures` also runs those without a ratio, and prints all that each measures. `--update` makes what
was seen the baselines. The last line of `--json` has the table.
"""

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from benchmarks.baselines import (
    BASELINES,
    Baseline,
    Baselines,
    Better,
    Measured,
    Verdict,
    judged,
    processor_flags,
    read_baselines,
    updated,
    write_baselines,
)
from daemon.console import Narrator
from ratchet_client.errors import RatchetError
from streams.runtime.processes import die_with_parent

ROOT = Path(__file__).parents[1]
MOST_SECONDS = 3600.0
"""The longest that a benchmark may take."""
_END_S = 20.0
IDLE_LOAD = 0.5


@dataclass(frozen=True, slots=True)
class Benchmark:
    """A module of this package, and the arguments with which it is run; `better` is None where it has no ratio."""

    module: str
    arguments: tuple[str, ...] = ()
    better: Better | None = Better.HIGHER


def _branching(environment: str) -> Benchmark:
    return Benchmark("branching", ("--environment", environment))


BENCHMARKS = {
    "command_line": Benchmark("command_line", better=Better.LOWER),
    "redaction": Benchmark("redaction"),
    "ingest": Benchmark("ingest", ("--events", "20000")),
    "ingest_long": Benchmark("ingest", ("--events", "200000", "--rounds", "1")),
    "growth": Benchmark("growth", ("--events", "5000000"), Better.LOWER),
    "branching_textworld_express": _branching("textworld_express"),
    "branching_bfcl": _branching("bfcl"),
    "branching_scienceworld": _branching("scienceworld"),
    "branching_textworld": _branching("textworld"),
    "gateway": Benchmark("gateway", ("--rounds", "3", "--seconds", "2")),
    "rollback": Benchmark("rollback", better=Better.LOWER),
    "swaps": Benchmark("swaps"),
    "evaluation": Benchmark("evaluation"),
    "training": Benchmark("training", ("--updates", "3")),
    "inference": Benchmark("inference"),
    "canary": Benchmark("canary", better=None),
    "capacity": Benchmark("capacity", better=None),
    "gate_power": Benchmark("gate_power", better=None),
    "scaling": Benchmark("scaling", ("--partitions", "8"), better=None),
}


@dataclass(frozen=True, slots=True)
class Row:
    """A line of the table. `error` tells why a benchmark gave nothing."""

    name: str
    verdict: Verdict
    ratio: float | None = None
    baseline: Baseline | None = None
    error: str = ""

    def as_json(self) -> dict[str, object]:
        return {
            "benchmark": self.name,
            "ratio": self.ratio,
            "baseline": self.baseline and self.baseline.ratio,
            "noise": self.baseline and self.baseline.noise,
            "verdict": self.verdict.value,
            "error": self.error,
        }


def figures_of(benchmark: Benchmark, tick: Callable[[float], None]) -> dict[str, Any]:
    """Run a benchmark in a process of its own and return the object on its last line.

    `tick` is told every second how many have passed. Raises `RuntimeError` where it fails, takes too long or prints
    something else.
    """
    command = [sys.executable, "-m", f"benchmarks.{benchmark.module}", *benchmark.arguments, "--json"]
    began, parent = time.monotonic(), os.getpid()
    with tempfile.TemporaryFile("w+") as output, tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=errors,
            text=True,
            start_new_session=True,  # Ctrl-C reaches it once, by `_end`
            preexec_fn=lambda: die_with_parent(parent),
        )
        try:
            while process.poll() is None and (passed := time.monotonic() - began) < MOST_SECONDS:
                tick(passed)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(1.0)
            if process.returncode is None:
                raise RuntimeError(f"it did not end within {MOST_SECONDS:.0f} s")
        finally:
            _end(process)
        output.seek(0)
        errors.seek(0)
        if process.returncode:
            said = errors.read().strip().splitlines() or ["nothing"]
            raise RuntimeError(f"it exited with {process.returncode}; its last words: {said[-1]}")
        lines = output.read().splitlines() or [""]
    try:
        figures = json.loads(lines[-1])
    except json.JSONDecodeError as error:
        raise RuntimeError(f"its last line is not JSON: {lines[-1][:200]!r}") from error
    if not isinstance(figures, dict):
        raise RuntimeError(f"its last line is not an object: {lines[-1][:200]!r}")
    return figures


def _end(process: "subprocess.Popen[str]") -> None:
    """End it as Ctrl-C does, so that it ends what it started; kill all of them where it does not."""
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(_END_S)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def measured(benchmark: Benchmark, figures: Mapping[str, Any]) -> Measured:
    """The ratio among the figures. Raises `RuntimeError` where one was to be there and is not."""
    if benchmark.better is None:
        return Measured(benchmark.arguments, None)
    ratio = figures.get("ratio")
    if isinstance(ratio, bool) or not isinstance(ratio, int | float) or ratio <= 0:
        raise RuntimeError(f"its `ratio` is {ratio!r} and not a positive number")
    return Measured(benchmark.arguments, float(ratio), tuple(figures.get("ratios", ())))


def table(rows: Sequence[Row]) -> Table:
    """The rows for people."""
    shown = Table("benchmark", "ratio", "baseline", "noise", "verdict")
    for row in rows:
        low, high = row.baseline.noise if row.baseline else (None, None)
        shown.add_row(
            row.name,
            "" if row.ratio is None else f"{row.ratio:g}",
            "none" if row.baseline is None else f"{row.baseline.ratio:g} ({row.baseline.seen})",
            "" if low is None else f"{low:g} to {high:g}",
            escape(f"{row.verdict.value}: {row.error}" if row.error else row.verdict.value),
        )
    return shown


def run_all(
    names: Sequence[str], baselines: Baselines, narrator: Narrator, *, show: bool
) -> tuple[list[Row], Baselines]:
    """Run the benchmarks of these names. Returns their rows, and the baselines that their ratios make.

    One that fails does not keep the others from running. All figures are printed where `show` says so.
    """
    rows, seen, flags = list[Row](), dict[str, Baseline](), processor_flags()
    for number, name in enumerate(names):
        benchmark, baseline = BENCHMARKS[name], baselines.get(name)

        def tick(passed: float, number: int = number, name: str = name) -> None:
            narrator.advance("benchmarks", number, len(names), f"{name}, {passed:.0f} s")

        try:
            figures = figures_of(benchmark, tick)
            result = measured(benchmark, figures)
        except RuntimeError as error:
            rows.append(Row(name, Verdict.FAILED, baseline=baseline, error=str(error)))
        else:
            if show:
                for field, value in figures.items():
                    print(f"{name} {field:>22} {value}", flush=True)
            verdict = judged(result, benchmark.better or Better.HIGHER, baseline, flags)
            rows.append(Row(name, verdict, result.ratio, baseline))
            if result.ratio is not None:
                seen[name] = updated(baseline, result, flags, date.today())
        narrator.say(f"{name}: {rows[-1].verdict.value} {rows[-1].error}".rstrip())
    return rows, seen


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=BENCHMARKS, metavar="NAME", help=f"of {', '.join(BENCHMARKS)}")
    parser.add_argument(
        "--figures", action="store_true", help="print all that each measures, also those without a ratio"
    )
    parser.add_argument("--update", action="store_true", help="make what was seen the baselines")
    parser.add_argument("--strict", action="store_true", help="exit 1 where a ratio is worse or a benchmark fails")
    parser.add_argument("--json", action="store_true", help="print the table as one JSON object on the last line")
    options = parser.parse_args()
    names = list(dict.fromkeys(options.only or ())) or [
        name for name, each in BENCHMARKS.items() if each.better or options.figures
    ]
    load = os.getloadavg()[0]
    try:
        baselines = read_baselines(BASELINES)
    except RatchetError as error:
        parser.error(str(error))
    with Narrator() as narrator:
        if load > IDLE_LOAD:
            narrator.say(
                f"the load is {load:.1f}: ratios of what waits for processors may be worse than on an idle machine"
            )
        rows, seen = run_all(names, baselines, narrator, show=options.figures)
    if options.update:
        write_baselines(BASELINES, baselines | seen)
    if options.json:
        print(json.dumps({"load": load, "flags": processor_flags(), "benchmarks": [row.as_json() for row in rows]}))
    else:
        Console().print(table(rows))
    bad = [row.name for row in rows if row.verdict in (Verdict.WORSE, Verdict.FAILED)]
    if bad:
        print(f"worse than before, or failed: {', '.join(bad)}", file=sys.stderr)
    sys.exit(1 if bad and options.strict else 0)


if __name__ == "__main__":
    main()
