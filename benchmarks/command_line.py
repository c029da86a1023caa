"""The processor time that the command line takes before it does anything, against a bare Python's.

`python -m benchmarks.command_line [--rounds R] [--json]` runs each in processes of their own, in turns. `ratio` is the
time of `ratchet --help` over that of a Python that imports argparse; there are medians of all.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
from statistics import median

from streams.runtime.processes import free_port

# What fails at once asks a control API that is not there: all that it did before is in its time.
COMMANDS: dict[str, tuple[tuple[str, ...], int]] = {
    "bare": (("-c", "import argparse"), 0),
    "help": (("-m", "daemon.cli", "--help"), 0),
    "rollback_help": (("-m", "daemon.cli", "rollback", "--help"), 0),
    "rollback": (("-m", "daemon.cli", "rollback"), 1),
    "status": (("-m", "daemon.cli", "status"), 1),
    "history": (("-m", "daemon.cli", "history"), 0),
}


def processor_seconds(arguments: tuple[str, ...], status: int, home: str) -> float:
    """The processor time of a Python with these arguments. Raises `RuntimeError` if it does not exit with `status`."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    own = {"RATCHET_HOME": home, "RATCHET_SERVING__PORT": str(free_port())}
    done = subprocess.run(
        [sys.executable, *arguments], env=os.environ | own, capture_output=True, text=True, check=False
    )
    if done.returncode != status:
        raise RuntimeError(f"{' '.join(arguments)} exited with {done.returncode}: {done.stderr}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as home:
        rounds = [
            {name: processor_seconds(*command, home) for name, command in COMMANDS.items()}
            for _ in range(1 + options.rounds)
        ][1:]  # the first reads the files from the disk
    report = {f"{name}_s": round(median(each[name] for each in rounds), 3) for name in COMMANDS}
    report["ratio"] = round(median(each["help"] / each["bare"] for each in rounds), 1)
    report["rollback_help_ratio"] = round(median(each["rollback_help"] / each["bare"] for each in rounds), 1)
    if options.json:
        print(json.dumps(report))
    else:
        for field, value in report.items():
            print(f"{field:>20} {value}")


if __name__ == "__main__":
    main()
