"""Errors of redaction, and its cost, on the collections of lines that the tests assert.

`python -m benchmarks.redaction [--rounds R] [--lines] [--json]` prints how many harmless lines are changed and how many
secrets are left, of each kind, and the same of detect-secrets with all its plugins, which knows no personal data.
`--lines` shows the lines themselves. `ratio` is detect-secrets' time for all lines over ours.
"""

import argparse
import json
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from statistics import median

from detect_secrets.core.scan import scan_file
from detect_secrets.settings import default_settings

from streams.redaction.redactor import Redactor
from streams.redaction.settings import RedactionSettings
from tests.corpora.lines import Line, harmless, is_redacted, secret

# Of the kinds of secrets these are for detect-secrets to find.
CREDENTIALS = frozenset({"password", "api_key", "jwt", "private_key", "high_entropy"})


def by_redaction(lines: list[Line]) -> list[bool]:
    """Return for each line whether it is redacted, all of its secrets where it has some."""
    redactor = Redactor(RedactionSettings(), b"benchmark")
    return [is_redacted(line, redactor) for line in lines]


def by_detect_secrets(lines: list[Line]) -> list[bool]:
    """Return for each line whether detect-secrets raises an alarm, which need not name the whole secret."""
    numbers = [number for number, line in enumerate(lines) for _ in line.text.splitlines()]
    with tempfile.NamedTemporaryFile("w", suffix=".txt", encoding="utf-8") as file, default_settings():
        file.writelines(f"{part}\n" for line in lines for part in line.text.splitlines())
        file.flush()
        found = {numbers[alarm.line_number - 1] for alarm in scan_file(file.name)}
    return [number in found for number in range(len(lines))]


def seconds(detector: Callable[[list[Line]], list[bool]], lines: list[Line]) -> float:
    began = time.process_time()
    detector(lines)
    return time.process_time() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--lines", action="store_true", help="also show the lines that redaction is wrong about")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    good, bad = harmless(), secret()
    credentials = [line for line in bad if line.kind in CREDENTIALS]
    wrong = [line for line, found in zip(good, by_redaction(good), strict=True) if found]
    missed = [line for line, found in zip(bad, by_redaction(bad), strict=True) if not found]
    times = [(seconds(by_redaction, good + bad), seconds(by_detect_secrets, good + bad)) for _ in range(options.rounds)]
    report = {
        "harmless_lines": len(good),
        "false_positives": len(wrong),
        "false_positives_of_detect_secrets": sum(by_detect_secrets(good)),
        "secret_lines": len(bad),
        "missed": len(missed),
        "missed_kinds": dict(Counter(line.kind for line in missed)),
        "credential_lines": len(credentials),
        "credentials_missed": sum(line.kind in CREDENTIALS for line in missed),
        "credentials_missed_by_detect_secrets": by_detect_secrets(credentials).count(False),
        "us_per_line": round(median(ours for ours, _ in times) / len(good + bad) * 1e6),
        "ratio": round(median(theirs / ours for ours, theirs in times), 1),
    }
    if options.lines:
        for line in (*wrong, *missed):
            print(f"{'missed' if line.secrets else 'false positive'}, {line.kind}: {line.text!r}")
    if options.json:
        print(json.dumps(report))
    else:
        for field, value in report.items():
            print(f"{field:>36} {value}")


if __name__ == "__main__":
    main()
