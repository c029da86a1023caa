"""An erasure in a lake leaves nothing in its files and its catalog, while another writer goes on."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from daemon.erasure.carrying_out import carry_out
from daemon.erasure.request import ErasureRequest, ask, is_asked_for, report_of
from daemon.registry.registry import Registry
from ratchet_client.crash_points import VARIABLE
from ratchet_client.events import RetractionEvent
from streams.store.ducklake import connect, folder_of
from streams.store.queries.erasure import REWRITTEN
from streams.store.settings import Backend, LakeSettings, StoreSettings
from streams.store.tables import TABLES
from streams.store.writer import Store
from streams.trust.holdout import Split
from tests.builders.episodes import HOLDOUT, KAFKA, TASKS, episode
from tests.builders.stored import Log, branches, column, records, result
from tests.crash.victims import ROOT
from tests.integration.lake import rows
from tests.postgres import Postgres

pytestmark = pytest.mark.slow

PLANTED, LEAVES = "zanzibar-4711", "tenant/lea"
CARRY_OUT = """
import sys
from pathlib import Path
from daemon.erasure.carrying_out import carry_out
from streams.store.settings import StoreSettings
carry_out(Path(sys.argv[1]), StoreSettings.model_validate_json(sys.argv[2]))
"""


@pytest.fixture
def settings(lake: LakeSettings) -> StoreSettings:
    return StoreSettings(backend=Backend.DUCKLAKE, lake=lake)


@pytest.fixture
def store(settings: StoreSettings) -> Iterator[Store]:
    """A writer that goes on: LEAVES and another one have episodes with branches, in files and in the catalog."""
    store = Store.open(settings, HOLDOUT, KAFKA)
    log, tasks = Log(store), TASKS[Split.TRAIN]
    log.publish(*episode("stays", tasks[0], action="say hello"))
    log.branched("stays", tasks[0])
    # At once enough for files; what is less is kept in the catalog.
    log.publish(*(event for number in range(12) for event in of_leaves(f"leaves-{number}")))
    log.branched("leaves-0", tasks[1])
    log.recovered("leaves-1", tasks[1], 0)
    store.tidy(30)
    log.publish(*of_leaves("leaves-late"), RetractionEvent(principal=LEAVES, reason="asked"))
    yield store
    store.close()


@pytest.fixture
def home(tmp_path: Path) -> Path:
    home = tmp_path / "home"
    Registry(home)
    return home


def of_leaves(name: str) -> list[Any]:
    *steps, outcome = episode(name, TASKS[Split.TRAIN][1], action=f"say {PLANTED}")
    return [*(step.model_copy(update={"principal": LEAVES}) for step in steps), outcome]


def contents(lake: LakeSettings) -> dict[str, set[str]]:
    with connect(lake) as connection:
        return {name: set(map(repr, rows(connection, f"FROM {name}"))) for name in TABLES}


def holding(lake: LakeSettings, postgres: Postgres) -> list[str]:
    """The Parquet files with the planted value in any cell or statistic, and the catalog's rows with it."""
    files = [
        path.name
        for path in folder_of(lake).rglob("*.parquet")
        if PLANTED.encode() in path.read_bytes() or PLANTED in repr(pq.read_table(path).to_pylist())
    ]
    # DuckLake keeps small inserts in the catalog, texts as bytes.
    forms = (PLANTED, PLANTED.encode().hex())
    return files + [line for line in postgres.dump(lake.catalog).splitlines() if any(form in line for form in forms)]


def ask_for(home: Path) -> ErasureRequest:
    request = ErasureRequest(actor="anna", principal=LEAVES)
    ask(home, request)
    return request


def check(before: dict[str, set[str]], lake: LakeSettings, postgres: Postgres) -> None:
    """Nothing planted is left, and every row of others is."""
    assert holding(lake, postgres) == []
    after = contents(lake)
    for name in TABLES:
        if name not in ("erased", "offsets"):
            assert after[name] == {row for row in before[name] if not _is_erased(name, row)}, name


def _is_erased(table: str, row: str) -> bool:
    return table in REWRITTEN and "leaves-" in row


def test_nothing_is_left_in_files_and_catalog_and_another_writer_goes_on(
    store: Store, settings: StoreSettings, home: Path, postgres: Postgres
) -> None:
    lake = settings.lake
    before, sequence = contents(lake), store.sequence
    told = "\n".join(holding(lake, postgres))
    assert [
        each for each in (".parquet", "file_column_stats", "table_column_stats", "inlined_data") if each not in told
    ] == []
    request = ask_for(home)
    report = carry_out(home, settings)
    check(before, lake, postgres)
    assert report is not None
    assert report == report_of(home, request.erasure_id)
    assert report.erasure.rows["events"] == sum("leaves-" in row for row in before["events"])
    assert not is_asked_for(home)
    assert carry_out(home, settings) is None

    # The other writer knows of it in its next transaction: what comes again, or late, is not stored.
    events, late = column(store, "SELECT count(*) FROM events")[0], store.positions()[(KAFKA.events_topic, 0)]
    store.append(records([*of_leaves("leaves-0"), *of_leaves("leaves-new"), *episode("comes")], late))
    store.append([result(branches("leaves-2", TASKS[Split.TRAIN][1], actions=(PLANTED,)), 2)])
    assert column(store, "SELECT count(*) FROM events")[0] == events + len(episode("comes"))
    assert holding(lake, postgres) == []
    numbered = " UNION ALL ".join(f"SELECT sequence FROM {name}" for name in ("events", "transitions", "outbox"))
    later = [each for each in column(store, numbered) if each > sequence]
    assert len(later) == len(set(later))
    assert min(later) > sequence + 1  # one was for the note of the principal


@pytest.mark.parametrize(
    "place",
    [
        "store.commit:before",
        pytest.param("erasure.step:before@3", marks=pytest.mark.nightly),
        pytest.param("store.commit:after", marks=pytest.mark.nightly),
        pytest.param(f"erasure.step:before@{len(REWRITTEN) + 1}", marks=pytest.mark.nightly),
    ],
)
def test_killed_on_the_way_it_goes_on(
    place: str, store: Store, settings: StoreSettings, home: Path, postgres: Postgres
) -> None:
    before = contents(settings.lake)
    request = ask_for(home)
    died = run(home, settings, place)
    assert died.returncode == -signal.SIGKILL, died.stderr
    store.append(records(episode("meanwhile"), store.positions()[(KAFKA.events_topic, 0)]))
    written = contents(settings.lake)
    before = {name: before[name] | {row for row in written[name] if "meanwhile" in row} for name in TABLES}
    ended = run(home, settings, "")
    assert ended.returncode == 0, ended.stderr
    check(before, settings.lake, postgres)
    assert report_of(home, request.erasure_id) is not None


def run(home: Path, settings: StoreSettings, place: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", CARRY_OUT, str(home), settings.model_dump_json()],
        cwd=ROOT,
        env={**os.environ, VARIABLE: place},
        capture_output=True,
        text=True,
    )
