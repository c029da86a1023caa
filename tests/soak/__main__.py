"""Run the whole of Ratchet under load for as long as you like, while one thing after the other goes wrong.

    python -m tests.soak --minutes 120 --seed 7 --out soak

It starts `ratchet run` with all roles and a tiny model, producers, and agents that ask the gateway. Then processes are
killed and stopped, the disk runs full, the network is cut, the clock jumps. For the last quarter of the time all is
left in peace. In the end everything acknowledged must be stored once, and memory flat. As root it has a network and
mounts of its own; without, the faults that need them are left out. Ctrl-C ends the faults, and the report is written
all the same; a second one ends the wait for what is under way. Ends with status 1 when anything was found.
"""

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path

from tests.crash.victims import ROOT
from tests.installed import faulty_package
from tests.soak.cluster import KafkaCluster
from tests.soak.faults import Kind, drawn
from tests.soak.plot import draw
from tests.soak.processes import Samples, adopt_orphans
from tests.soak.report import SoakReport
from tests.soak.soak import Interrupted, Soak
from tests.soak.surroundings import Surroundings, surround
from tests.soak.system import MODEL, RECORDED, System, running, settings_of

REPORT, PAGE, PICTURE, SAMPLES = "report.json", "report.md", "resources.svg", "samples.json"
_CALM_SHARE = 0.25
_STARTS_WITHIN_S = 300.0
_WARM_UP_S = 120.0


def tell(line: str) -> None:
    print(time.strftime("%H:%M:%S ", time.gmtime()) + line, file=sys.stderr, flush=True)


def soak(options: argparse.Namespace, out: Path, surroundings: Surroundings) -> SoakReport:
    """Prepare, soak, and write the report into `out`."""
    tell("making a tiny model, and playing the episodes that producers publish")
    subprocess.run(
        [sys.executable, "-m", "tests.soak.prepare", out],
        cwd=ROOT,
        check=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=(out / "prepare.log").open("wb"),
    )
    cluster = KafkaCluster(options.kafka, out / "kafka") if options.kafka else None
    settings = settings_of(out / "home", out / MODEL, cluster)
    samples, system = Samples(), System(settings, out, surroundings, cluster)
    at_work = Soak(system, samples, options.seed, tell)

    def interrupt(*_: object) -> None:
        at_work.interrupted = True

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, interrupt)
    tell("starting Ratchet")
    with faulty_package(), running(system):
        interrupted = False
        samples.start()
        try:
            _strike(at_work, options, out, surroundings)
        except Interrupted:
            interrupted = True
            tell("interrupted: stopping the load, and waiting for what is under way")
        try:
            counted, promoted = at_work.drain(options.drain)
        finally:
            samples.stop()
        lives = {name: tuple(each.values()) for name, each in samples.series.items()}
        flatness = at_work.flatness(_WARM_UP_S)
        calls = system.calls()
        report = SoakReport(
            seed=options.seed,
            minutes=options.minutes,
            seconds=round(at_work.elapsed, 1),
            interrupted=interrupted,
            kafka="Apache Kafka, three nodes" if cluster else "the embedded broker",
            conditions=f"{os.cpu_count()} cores",
            load=os.getloadavg(),
            starts=system.starts,
            events=counted.events,
            stored=len(system.known),
            answers=counted.calls,
            failures=calls.failures,
            verdicts=counted.verdicts,
            missing_events=counted.missing_events,
            missing_calls=counted.missing_calls,
            promoted=len(promoted),
            served=tuple(sorted({answer.served for answer in calls.answers})),
            faults=tuple(at_work.faults),
            left_out={kind.value: why for kind, why in surroundings.missing.items()},
            flatness=flatness,
            findings=tuple(at_work.findings),
        )
        draw(out / PICTURE, lives, at_work.faults, at_work.began)
        told = {name: [asdict(series) for series in each] for name, each in lives.items()}
        (out / SAMPLES).write_text(json.dumps(told) + "\n")
        shutil.copytree(settings.home / "logs", out / "logs", dirs_exist_ok=True)
    (out / REPORT).write_text(report.model_dump_json(indent=2) + "\n")
    (out / PAGE).write_text(report.markdown(PICTURE))
    return report


def _strike(at_work: Soak, options: argparse.Namespace, out: Path, surroundings: Surroundings) -> None:
    """Strike until the calm begins, and wait for its end. Raises `Interrupted`."""
    system = at_work.system
    if at_work.wait(system.answers, _STARTS_WITHIN_S) is None:
        raise SystemExit(f"Ratchet did not start: see {out}/run.log and {system.settings.home}/logs")
    system.start_load(out / RECORDED, options.pause)
    if at_work.wait(lambda: len(system.stored()) > 0, _STARTS_WITHIN_S) is None:
        raise SystemExit(f"nothing is stored: see {out}/run.log and the logs beside it")
    at_work.began = time.monotonic()
    kinds = [kind for kind in Kind if kind not in surroundings.missing]
    end = options.minutes * 60
    for fault in drawn(options.seed, kinds):
        if at_work.elapsed + fault.pause_s + fault.lasts_s > end * (1 - _CALM_SHARE):
            break
        at_work.calm(fault.pause_s)
        at_work.strike(fault)
    tell(f"leaving all in peace until {end / 60:.0f} min")
    at_work.calm(max(0.0, end - at_work.elapsed))


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.soak", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=60.0, help="how long (%(default)s)")
    parser.add_argument("--seed", type=int, default=None, help="what goes wrong when; another each time by default")
    parser.add_argument("--out", type=Path, required=True, help="a new folder for the report, ledgers and logs")
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    parser.add_argument(
        "--kafka",
        type=Path,
        default=os.environ.get("KAFKA_HOME") or None,
        help="an unpacked Apache Kafka, of which three nodes are started ($KAFKA_HOME); without it the embedded broker",
    )
    parser.add_argument("--pause", type=float, default=12.0, help="seconds between a producer's batches (%(default)s)")
    parser.add_argument("--disk-mib", type=int, default=2048, help="size of the home, in memory, as root (%(default)s)")
    parser.add_argument("--drain", type=float, default=600.0, help="longest wait in the end, in seconds (%(default)s)")
    options = parser.parse_args()
    if options.seed is None:
        options.seed = random.randrange(2**32)
    out = options.out.resolve()
    if out.exists() and any(out.iterdir()):
        parser.error(f"{out} is not empty: name a new folder")
    out.mkdir(parents=True, exist_ok=True)
    adopt_orphans()
    surroundings = surround(out / "home", out, options.disk_mib)
    if not options.kafka:
        surroundings.missing[Kind.NODE] = "there is one broker: name an Apache Kafka with --kafka"
    for kind, why in surroundings.missing.items():
        tell(f"left out: {kind}, since {why}")
    tell(f"seed {options.seed}")
    try:
        report = soak(options, out, surroundings)
    except KeyboardInterrupt:
        tell("interrupted before anything ran")
        return 130
    tell(f"{'well' if report.well else 'NOT well'}; the report is {out / PAGE}")
    if options.json:
        print(report.model_dump_json(indent=2))
    return 0 if report.well else 1


if __name__ == "__main__":
    sys.exit(main())
