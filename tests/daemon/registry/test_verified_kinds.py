"""The table of docs/operating.md: of which files of a home `ratchet verify` names a changed byte, and of which not."""

import json
from datetime import timedelta
from fnmatch import fnmatch
from pathlib import Path

import duckdb
import pytest

from daemon.erasure.request import ErasureReport, ErasureRequest, finish
from daemon.registry.instance import instance_of
from daemon.registry.learner_status import LEARNER_FILE, LEARNER_LOCK
from daemon.registry.schemas import Erasure
from daemon.registry.verifying import verify
from daemon.supervisor import UNREAD_FILE
from learners.base_model import base_digest
from streams.access.token_file import TokenFile
from streams.access.tokens import AccessRole
from streams.assembly.settings import AssemblySettings
from streams.assembly.state import AssemblyState
from streams.store.settings import StoreSettings
from streams.store.tables import TABLES
from streams.store.writer import Store
from streams.trust.holdout import Split
from tests.builders.captured import conversation
from tests.builders.episodes import HOLDOUT, KAFKA, TASKS, episode
from tests.builders.stored import Log
from tests.daemon.registry.test_verifying import CHECKSUM, changed, files, made, named

DOCS = Path(__file__).parents[3] / "docs" / "operating.md"
BEGINS = "| files of the home | is named |"
# Behind what its last fingerprint covers, the account of held-out tasks is not vouched for.
COVERED = {"task_uses.jsonl": 18}


def table() -> dict[str, bool]:
    """Per pattern of a path whether the table says that a changed byte is named."""
    rows = DOCS.read_text().split(BEGINS)[1].split("\n\n")[0].splitlines()[2:]
    cells = [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]
    return {pattern.strip(" `"): said == "yes" for patterns, said, _ in cells for pattern in patterns.split(",")}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with every kind of file that lasts, written by what writes it, as far as that needs no model."""
    home = made(tmp_path_factory.mktemp("kinds") / "home")
    store = Store.open(StoreSettings(path=home / "store.duckdb"), HOLDOUT, KAFKA)
    log = Log(store)
    for number, task in enumerate(TASKS[Split.TRAIN][:5]):
        log.publish(*episode(f"e{number}", task, action=f"go {number}"))
    store.close()
    state = AssemblyState.open(AssemblySettings(path=home / "assembly.sqlite"), 0)
    state.add(conversation("hello", [("One.", "and?")]), 0)
    state.close()
    TokenFile(home).issue("ann", [AccessRole.READ], timedelta(days=3))
    TokenFile(home).issue("bob", [AccessRole.OPERATE])
    instance_of(home)
    request = ErasureRequest(principal="leaves", actor="anna")
    nothing = Erasure(erasure_id=request.erasure_id, rows={}, adapters=(), paths=(), others=0)
    finish(home, request, ErasureReport(erasure=nothing, in_use=(), retained=()))
    base = home / "base" / "tiny"
    base.mkdir(parents=True)
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors"):
        (base / name).write_text(f"the {name} of a base model")
    (base / "converted.json").write_text(json.dumps({"digest": base_digest(base)}))
    (home / "logs").mkdir()
    (home / "logs" / "record.log").write_text("a line\n")
    for name in (LEARNER_FILE, UNREAD_FILE, "aa.json", "serve.lock", LEARNER_LOCK):
        (home / name).write_text("{}\n")
    return home


@pytest.mark.slow
def test_the_table_says_of_each_file_what_verify_does(home: Path) -> None:
    assert verify(home).findings == ()
    said, seen, met = table(), dict[str, bool](), set[str]()
    for path in files(home):
        name = str(path.relative_to(home))
        (pattern,) = [each for each in said if fnmatch(name, each)] or [f"{name} is in no row"]
        size, told = COVERED.get(name, path.stat().st_size), list[bool]()
        for place in sorted({0, size // 3, size // 2, size - 1} if size else ()):
            with changed(path, place, 1):
                found = named(home, verify(home))
            mine = name.removesuffix(CHECKSUM) if not name.startswith("base/") else str(Path(name).parent)
            assert found <= {mine}, (name, place)
            told.append(found == {mine})
        met.add(pattern)
        if told:
            assert len(set(told)) == 1, f"{name} is named for some bytes only"
            seen[pattern] = told[0]
    assert seen == {pattern: said[pattern] for pattern in seen}
    assert met == set(said)


def test_a_changed_block_of_the_store_is_found_when_it_is_read(home: Path) -> None:
    path = home / "store.duckdb"
    with duckdb.connect(str(path), read_only=True) as connection:
        whole = {name: connection.execute(f"FROM {name} ORDER BY ALL").fetchall() for name in TABLES}
    size, silent, found = path.stat().st_size, 0, 0
    for place in range(20_000, size, size // 40):
        with changed(path, place, 1):
            try:
                with duckdb.connect(str(path), read_only=True) as connection:
                    read = {name: connection.execute(f"FROM {name} ORDER BY ALL").fetchall() for name in TABLES}
            except duckdb.Error:
                found += 1
            else:
                # The block holds nothing that is in use.
                silent += 1
                assert read == whole
    assert found > silent
