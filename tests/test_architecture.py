"""The house has four floors, and imports go down only."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FLOORS = ("streams", "learners", "evaluation", "daemon")
HEAVY = {"torch", "transformers", "peft", "safetensors"}
LONGEST_FILE = 350
FILES = [path for floor in FLOORS for path in sorted((ROOT / floor).rglob("*.py"))]


def imports(path: Path) -> Iterator[str]:
    """Every module that the file names in an import, at its top or within a function."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            yield node.module or ""


def named(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", FILES, ids=named)
def test_imports_go_down_only(path: Path) -> None:
    floor = FLOORS.index(path.relative_to(ROOT).parts[0])
    above = set(FLOORS[floor + 1 :]) | {"tests", "benchmarks", "examples"}
    assert not {module for module in imports(path) if module.partition(".")[0] in above}


def test_the_streams_import_no_torch() -> None:
    found = {(named(path), module) for path in FILES if named(path).startswith("streams/") for module in imports(path)}
    assert not {(path, module) for path, module in found if module.partition(".")[0] in HEAVY}
    modules = [
        named(path).removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        for path in FILES
        if named(path).startswith("streams/")
    ]
    script = f"import importlib, sys\nfor name in {modules}: importlib.import_module(name)\nprint(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=120, check=True
    )
    assert not HEAVY & set(done.stdout.split())


def test_the_agent_knows_nothing_of_ratchet_but_the_schema_of_events() -> None:
    known = {
        module
        for module in imports(ROOT / "examples" / "textworld_agent.py")
        if module.partition(".")[0] in {*FLOORS, "examples", "benchmarks", "tests"}
    }
    assert known == {"streams.events"}


def test_no_file_is_so_long_that_it_must_be_two_ideas() -> None:
    others = [path for folder in ("tests", "examples", "benchmarks") for path in (ROOT / folder).rglob("*.py")]
    lengths = {named(path): len(path.read_text().splitlines()) for path in (*FILES, *others)}
    assert not {path: length for path, length in lengths.items() if length > LONGEST_FILE}


@pytest.mark.parametrize("path", FILES, ids=named)
def test_every_module_says_what_it_is_for(path: Path) -> None:
    assert ast.get_docstring(ast.parse(path.read_text()))
