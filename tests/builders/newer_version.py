"""A version of Ratchet newer than this one: its code with a field more in what roles tell each other."""

import shutil
from pathlib import Path

ROOT = Path(__file__).parents[2]
_CHANGES = {
    "ratchet_client/events.py": [
        ("SCHEMA_VERSION: Final = 2", "SCHEMA_VERSION: Final = 3"),
        ("Literal[1, 2]", "Literal[1, 2, 3]"),
    ],
    "streams/branch_events.py": [
        (f'kind: Literal["{kind}"] = "{kind}"', f'kind: Literal["{kind}"] = "{kind}"\n    new: int = 0')
        for kind in ("branch_request", "branch_result")
    ],
    "streams/store/status.py": [("    states: int = Field(", "    new: int = 0\n    states: int = Field(")],
}


def newer_version(folder: Path) -> Path:
    """Write it into `folder`, where `python -m tests.roles` is its own; returns the folder."""
    shutil.copytree(ROOT / "streams", folder / "streams")
    shutil.copytree(ROOT / "clients/python/ratchet_client", folder / "ratchet_client")
    (folder / "tests").mkdir()
    shutil.copy(ROOT / "tests/roles.py", folder / "tests")
    for name, changes in _CHANGES.items():
        text = (folder / name).read_text()
        for old, new in changes:
            assert text.count(old) == 1, f"{name} has not one {old!r}: say what a newer version has"
            text = text.replace(old, new)
        (folder / name).write_text(text)
    return folder
