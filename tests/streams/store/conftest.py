"""The tests of the store run over each backend: over a lake some for each change, all others in the night.

A test that holds of one backend alone is parametrized with it.
"""

import pytest

from streams.store.settings import Backend

FOR_EACH_CHANGE = "test_writer.py"


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    chosen = any(mark.args[0] == "backend" for mark in metafunc.definition.iter_markers("parametrize"))
    if "backend" in metafunc.fixturenames and not chosen:
        often = metafunc.definition.path.name == FOR_EACH_CHANGE
        lake = pytest.param(Backend.DUCKLAKE, marks=pytest.mark.slow if often else pytest.mark.nightly)
        metafunc.parametrize("backend", [Backend.DUCKDB, lake])
