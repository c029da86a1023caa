"""Toolboxes, written into a folder."""

import json
from pathlib import Path
from typing import Any


def box(folder: Path, definition: str, *tasks: dict[str, Any], **files: str) -> Path:
    """A toolbox of the files; `__` in their names stands for a dot."""
    folder.mkdir(exist_ok=True)
    (folder / "toolbox.toml").write_text(definition)
    lines = tasks or ({"task_id": "one", "fold": "train", "opening": "Hello."},)
    (folder / "tasks.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text)
    return folder
