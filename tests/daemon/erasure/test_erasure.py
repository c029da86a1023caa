"""An erasure leaves nothing of what it erases in any byte of the home, and everything else as it was."""

import asyncio
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from daemon.erasure.carrying_out import carry_out, exposed_adapters
from daemon.erasure.request import ErasureReport, ErasureRequest, ask, is_asked_for, report_of
from daemon.registry.audit import Action
from daemon.registry.erasing import in_use, last_unexposed
from daemon.registry.lifecycle import State
from daemon.registry.registry import Registry
from daemon.registry.schemas import BASE
from daemon.registry.verifying import verify
from learners.snapshots import Snapshot, build_snapshot
from ratchet_client.crash_points import VARIABLE
from ratchet_client.events import RetractionEvent
from streams.store.api import build_api
from streams.store.client import StoreClient
from streams.store.settings import StoreSettings
from streams.store.tables import TABLES
from streams.store.writer import Store
from streams.trust.holdout import Split
from tests.builders.episodes import HOLDOUT, KAFKA, TASKS, episode
from tests.builders.stored import Log, branches, records, result
from tests.builders.trained import entered
from tests.crash.victims import ROOT
from tests.served import served

PLANTED = "zanzibar-4711"
CARRY_OUT = """
import sys
from pathlib import Path
from daemon.erasure.carrying_out import carry_out
from streams.store.settings import StoreSettings
home = Path(sys.argv[1])
carry_out(home, StoreSettings(path=home / "store.duckdb"))
"""
# Of a table each, before and after the swap, before the log, and before each path and the report.
STEPS = len(TABLES) + 3


def settings_of(home: Path) -> StoreSettings:
    return StoreSettings(path=home / "store.duckdb")


def plays(log: Log, name: str, task: str, said: str) -> None:
    """An episode of the principal `name`, whose branches and recovery say the same as its steps."""
    log.publish(*episode(name, task, action=f"say {said}"))
    log.branched(name, task)


def snapshot_of(store: Store, home: Path) -> Snapshot:
    async def build(url: str) -> Snapshot:
        async with StoreClient(url) as client:
            return await build_snapshot(client, HOLDOUT, home / "snapshots")

    with served(build_api(store), lifespan="off") as url:
        return asyncio.run(build(url))


def approve(registry: Registry, adapter: str) -> None:
    for state in (State.TRAINED, State.EVALUATING, State.APPROVED):
        registry.enter(adapter, state, "learner", "a test")


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`clean` served, then `saw` did, then `clean` again; `child` was trained on from `saw`, with a clean snapshot."""
    home = tmp_path_factory.mktemp("kept") / "home"
    registry, store = Registry(home), Store.open(settings_of(home), HOLDOUT, KAFKA)
    log, tasks = Log(store), TASKS[Split.TRAIN]
    plays(log, "stays", tasks[0], "hello")
    clean = entered(home, snapshot_of(store, home), weights="clean")
    plays(log, "leaves", tasks[1], PLANTED)
    log.recovered("leaves", tasks[1], 0)
    saw = entered(home, snapshot_of(store, home), weights="saw")
    plays(log, "comes", tasks[2], "hi")
    log.publish(RetractionEvent(principal="leaves", reason="asked"))
    child = entered(home, snapshot_of(store, home), parent=saw, weights="child")
    store.close()
    for adapter in (clean, saw):
        approve(registry, adapter)
        registry.promote(adapter, "learner", "better")
    approve(registry, child)
    trial = home / "trials" / f"{saw}-1"
    trial.mkdir(parents=True)
    (trial / "rollouts.jsonl").write_text(f'{{"said": "{PLANTED}"}}\n')
    (home / "exports").mkdir()
    pq.write_table(pa.table({"episode_id": ["leaves"], "text": [PLANTED]}), home / "exports" / "then.parquet")
    pq.write_table(pa.table({"episode_id": ["stays"], "text": ["hello"]}), home / "exports" / "other.parquet")
    (home / "exports" / "chats.jsonl").write_text(f'{{"episode_id": "leaves", "said": "{PLANTED}"}}\n')
    (home / "store.duckdb.schema-1").write_bytes(PLANTED.encode())
    shutil.rmtree(home / "training")
    return home


@pytest.fixture
def home(kept: Path, tmp_path: Path) -> Path:
    return shutil.copytree(kept, tmp_path / "home")


def by_weights(home: Path) -> dict[str, str]:
    return {path.read_text(): path.parent.name for path in (home / "adapters").glob("*/adapter_model.safetensors")}


def rows(home: Path) -> dict[str, list[tuple[Any, ...]]]:
    with duckdb.connect(str(home / "store.duckdb"), read_only=True) as connection:
        return {name: connection.execute(f"FROM {name} ORDER BY ALL").fetchall() for name in TABLES}


def holding(home: Path, planted: str) -> list[str]:
    """The files with the value in any byte, the tables and Parquet files with it in any cell: both compress."""
    files = [path for path in home.rglob("*") if path.is_file()]
    found = [path.name for path in files if planted.encode() in path.read_bytes()]
    found += [name for name, of in rows(home).items() if planted in repr(of)]
    tables = [path for path in files if path.suffix == ".parquet"]
    return found + [path.name for path in tables if planted in repr(pq.read_table(path).to_pylist())]


def ask_for(home: Path, **subject: Any) -> ErasureRequest:
    """Roll back what saw it, as the command does, and ask."""
    registry = Registry(home)
    exposed = exposed_adapters(home, "leaves", ())
    if in_use(registry, exposed):
        registry.roll_back(last_unexposed(registry, exposed), "anna", "it saw the data")
    request = ErasureRequest(actor="anna", **(subject or {"principal": "leaves"}))
    ask(home, request)
    return request


def check(home: Path, before: dict[str, list[tuple[Any, ...]]], request: ErasureRequest) -> None:
    """The erasure is done: nothing planted is left, and every other row is as it was."""
    assert holding(home, PLANTED) == []
    after = rows(home)
    assert {name: [row for row in before[name] if row not in after[name]] for name in ("retractions", "offsets")} == {
        "retractions": [],
        "offsets": [],
    }
    for name, of in after.items():
        if name != "erased":
            assert [row for row in of if row not in before[name]] == []
            assert not [row for row in before[name] if row not in of and "leaves" not in repr(row)]
    columns = TABLES["erased"].names
    told = [dict(zip(columns, row, strict=True)) for row in after["erased"]]
    positions = {(row["topic"], row["offset"]) for row in told if row["topic"]}
    events = TABLES["events"].names
    gone = [dict(zip(events, row, strict=True)) for row in before["events"] if row not in after["events"]]
    assert gone
    assert positions == {(row["topic"], row["offset"]) for row in gone}
    assert verify(home).findings == ()
    assert not is_asked_for(home)
    entries = [entry for entry in Registry(home).audit.read() if entry.action is Action.ERASED]
    assert [entry.subject for entry in entries] == [request.erasure_id]
    assert "leaves" not in Registry(home).audit.path.read_text()


def test_nothing_of_a_principal_is_left_in_the_home_and_all_else_is(home: Path) -> None:
    before, adapters = rows(home), by_weights(home)
    assert {"then.parquet", "chats.jsonl", "rollouts.jsonl", "episodes.parquet"} <= set(holding(home, PLANTED))
    request = ask_for(home)
    report = carry_out(home, settings_of(home))
    check(home, before, request)
    assert report == report_of(home, request.erasure_id)
    assert by_weights(home) == {"clean": adapters["clean"]}
    assert report is not None
    assert set(report.erasure.adapters) == {adapters["saw"], adapters["child"]}
    assert report.erasure.rows["transitions"] > 2
    assert [(kept.topic, kept.records) for kept in report.retained] == [
        (KAFKA.events_topic, sum(row[2] != "retraction" and row[3] == "leaves" for row in before["events"]))
    ]
    registry = Registry(home)
    assert registry.refs().champion == adapters["clean"]
    assert {registry.state(adapters[name]) for name in ("saw", "child")} == {State.QUARANTINED}
    assert (home / "exports" / "other.parquet").exists()
    assert carry_out(home, settings_of(home)) is None


def test_an_episode_alone_can_be_erased(home: Path) -> None:
    ask_for(home, episodes=("leaves",))
    carry_out(home, settings_of(home))
    assert holding(home, PLANTED) == []
    assert [row for row in rows(home)["events"] if row[3] == "comes"]


def test_what_serves_is_kept_and_said(home: Path) -> None:
    saw = by_weights(home)["saw"]
    ask(home, ErasureRequest(actor="anna", principal="leaves"))
    report = carry_out(home, settings_of(home))
    assert report is not None
    assert report.in_use == (saw,)
    assert by_weights(home)["saw"] == saw
    assert Registry(home).refs().champion == saw
    assert verify(home).findings == ()


def test_the_last_adapter_that_did_not_see_it_is_found(home: Path) -> None:
    registry, adapters = Registry(home), by_weights(home)
    exposed = exposed_adapters(home, "leaves", ())
    assert set(exposed) == {adapters["saw"], adapters["child"]}
    assert last_unexposed(registry, exposed) == adapters["clean"]
    assert last_unexposed(registry, (*exposed, adapters["clean"])) == BASE


def test_what_was_erased_does_not_come_back(home: Path) -> None:
    ask_for(home)
    carry_out(home, settings_of(home))
    store = Store.open(settings_of(home), HOLDOUT, KAFKA)
    before = store.query("SELECT count(*) AS n FROM events")["n"][0].as_py()
    start = store.positions()[(KAFKA.events_topic, 0)]
    again = episode("leaves", TASKS[Split.TRAIN][1], action=f"say {PLANTED}")
    another = [event.model_copy(update={"event_id": f"{event.event_id}-2", "episode_id": "x"}) for event in again]
    store.append(records([*again, *another], start))
    late = store.positions()[(KAFKA.transitions_topic, 0)]
    store.append([result(branches("leaves", step=0, actions=(PLANTED,)), late)])
    assert store.query("SELECT count(*) AS n FROM events")["n"][0].as_py() == before
    assert store.positions()[(KAFKA.events_topic, 0)] == start + len(again) + len(another)
    assert store.positions()[(KAFKA.transitions_topic, 0)] == late + 1
    store.close()
    assert holding(home, PLANTED) == []
    # It knows them still when it is opened again.
    store = Store.open(settings_of(home), HOLDOUT, KAFKA)
    store.append(records(another, start + len(again) + len(another)))
    assert store.query("SELECT count(*) AS n FROM events")["n"][0].as_py() == before
    store.close()


# Between the new file and the old one's end, and between the refs and the log: for each change. The others at night.
FOR_EACH_CHANGE = [
    f"erasure.step:before@{len(TABLES) + 1}",
    f"erasure.step:before@{len(TABLES) + 5}",
    "lines.append:before",
]
PLACES = [
    *(f"erasure.step:before@{step}" for step in (1, 9, *range(len(TABLES), STEPS + 6))),
    *(f"file.rename:{side}@{time}" for side in ("before", "after") for time in (1, 2)),
    *("lines.append:before", "lines.append:after", "store.checkpoint:before"),
]


@pytest.mark.parametrize(
    "place", [pytest.param(place, marks=() if place in FOR_EACH_CHANGE else pytest.mark.nightly) for place in PLACES]
)
def test_killed_at_any_write_the_store_is_the_old_or_the_new_one_and_the_erasure_goes_on(
    place: str, home: Path
) -> None:
    before = rows(home)
    request = ask_for(home)
    died = run(home, place)
    assert died.returncode == -signal.SIGKILL, died.stderr
    between = rows(home)
    if between != before:
        assert PLANTED not in repr(between)
    store = Store.open(settings_of(home), HOLDOUT, KAFKA)  # a role of an older version may open it meanwhile
    store.close()
    ended = run(home, "")
    assert ended.returncode == 0, ended.stderr
    check(home, before, request)
    assert isinstance(report_of(home, request.erasure_id), ErasureReport)


def run(home: Path, place: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", CARRY_OUT, str(home)],
        cwd=ROOT,
        env={**os.environ, VARIABLE: place},
        capture_output=True,
        text=True,
    )
