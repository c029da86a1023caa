"""A file that grows beyond this is two ideas."""

from pathlib import Path

ROOT = Path(__file__).parents[1]
FOLDERS = ("clients", "daemon", "evaluation", "learners", "streams", "tests", "examples", "benchmarks", "ops")
MOST_LINES = 350


def test_no_file_is_longer_than_the_limit() -> None:
    files = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py")]
    lengths = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in files}
    assert {path: length for path, length in lengths.items() if length > MOST_LINES} == {}
