"""Writes what is generated: `python -m ops`."""

from pathlib import Path

from ops.dashboards import FOLDER, dashboards
from ops.metric_list import page

ROOT = Path(__file__).parents[1]


def main() -> None:
    (ROOT / "docs" / "metrics.md").write_text(page())
    for name, content in dashboards().items():
        (FOLDER / name).write_text(content)


if __name__ == "__main__":
    main()
