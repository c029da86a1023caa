"""Two embedded inference servers, which a test may kill and start again."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.builders.engines import Engine


@pytest.fixture(scope="module")
def engines(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Engine, Engine]]:
    """Both answer at first; they are those of one file of tests."""
    logs = tmp_path_factory.mktemp("engines")
    both = (Engine(tiny_base, logs / "first"), Engine(tiny_base, logs / "second"))
    try:
        for engine in both:
            engine.begin()
        for engine in both:
            engine.ready()
        yield both
    finally:
        for engine in both:
            engine.kill()
