"""The example of a query in the documentation runs as it is written."""

import asyncio
import shutil
import sys
from pathlib import Path

import pytest

from tests.builders.episodes import episode
from tests.builders.stored import Log, ServedStore

OPERATING = Path(__file__).parents[3] / "docs" / "operating.md"


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
async def test_the_documented_query_gives_its_rows(served_store: ServedStore, tmp_path: Path) -> None:
    Log(served_store.store).publish(*episode("a"))
    (block,) = [text for text in OPERATING.read_text().split("```") if "/query -H" in text]
    commands, _, _ = block.partition("\n  [{")
    commands = commands.replace("http://127.0.0.1:8401", served_store.url).replace("python -c", f"{sys.executable} -c")
    shell = await asyncio.create_subprocess_exec(
        *("bash", "-ec", commands), cwd=tmp_path, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    output, error = await shell.communicate()
    assert shell.returncode == 0, error.decode()
    (row,) = served_store.store.query("SELECT verifier, count(*) AS outcomes FROM outcomes GROUP BY ALL").to_pylist()
    assert output.decode().strip() == str([row])
