"""A store of an older version is brought to messages when it is opened: whole, once, and with a copy beside it."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pytest

from learners.snapshots import build_snapshot, read_trajectories
from ratchet_client.crash_points import VARIABLE
from ratchet_client.events import OutcomeEvent
from ratchet_client.messages import assistant, user
from streams.branch_events import BranchRequest
from streams.errors import StoreError
from streams.store.api import build_api
from streams.store.client import StoreClient
from streams.store.migrations import SCHEMA
from streams.store.settings import StoreSettings
from streams.store.status import status
from streams.store.tables import TABLES
from streams.store.writer import Store
from streams.trust.holdout import Split
from tests.builders.episodes import HOLDOUT, KAFKA, TASKS, episode
from tests.builders.old_stores import content, store_of_schema_1
from tests.builders.stored import branches, column, records, requests, result
from tests.crash.victims import ROOT
from tests.served import served

ODD = 'open the "box"\n\\ é😀\t'
OPEN = """
import os
import sys
from pathlib import Path
from streams.kafka.settings import KafkaSettings
from streams.store.settings import StoreSettings
from streams.store.writer import Store
from streams.trust.holdout import HoldoutSettings
os.setuid(int(sys.argv[2]))
Store.open(StoreSettings(path=Path(sys.argv[1])), HoldoutSettings(), KafkaSettings()).close()
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return store_of_schema_1(tmp_path / "store.duckdb")


@pytest.fixture
def store(path: Path) -> Iterator[Store]:
    opened = opened_at(path)
    yield opened
    opened.close()


def opened_at(path: Path) -> Store:
    return Store.open(StoreSettings(path=path), HOLDOUT, KAFKA)


def test_texts_become_messages_and_everything_else_stays(path: Path) -> None:
    before = content(path)
    opened_at(path).close()
    after = content(path)
    assert after.pop("schema_version") == [(SCHEMA,)]
    recorded = {row[1]: row[TABLES["events"].names.index("recorded_at")] for row in after["events"]}
    assert after["outcomes"] == [(*row, recorded[row[1]]) for row in before["outcomes"]]
    assert [after.pop(name) for name in ("undecided", "practised", "erased")] == [[], [], []]
    changed = {"transitions", "fatalities", "recoveries", "outcomes"}
    assert {name: rows for name, rows in after.items() if name not in changed} == {
        name: rows for name, rows in before.items() if name not in changed
    }
    names = TABLES["transitions"].names
    action, observation = names.index("action"), names.index("observation")
    assert [row[-5:] for row in after["transitions"]] == [(None,) * 5] * 10
    for was, row in zip(before["transitions"], after["transitions"], strict=True):
        reasoning = was[-1]
        same = [cell for number, cell in enumerate(was[:-1]) if number not in (action, observation)]
        assert [cell for number, cell in enumerate(row[:-5]) if number not in (action, observation)] == same
        said = {"role": "assistant", "content": was[action]}
        assert json.loads(str(row[action])) == said | ({} if reasoning is None else {"reasoning_content": reasoning})
        assert json.loads(str(row[observation])) == [{"role": "user", "content": was[observation]}]
    assert json.loads(str(after["fatalities"][0][3])) == {"role": "assistant", "content": 'hang "up"'}
    assert json.loads(str(after["recoveries"][0][4])) == [
        {
            "action": {"role": "assistant", "content": "back", "reasoning_content": "Go back."},
            "observation": [{"role": "user", "content": 'Done "so".'}],
        },
        {"action": {"role": "assistant", "content": "forward"}, "observation": [{"role": "user", "content": ""}]},
    ]


def test_the_file_as_it_was_is_kept_beside_it_and_nothing_happens_the_second_time(path: Path) -> None:
    before = content(path)
    opened_at(path).close()
    copy = path.with_name("store.duckdb.schema-1")
    assert content(copy) == before
    after = content(path)
    copy.unlink()
    opened_at(path).close()
    assert content(path) == after
    assert sorted(path.parent.iterdir()) == [path]


def test_a_new_store_has_the_schema_of_this_version_and_no_copy(tmp_path: Path) -> None:
    opened_at(tmp_path / "store.duckdb").close()
    assert content(tmp_path / "store.duckdb")["schema_version"] == [(SCHEMA,)]
    assert len(list(tmp_path.iterdir())) == 1


def test_requests_that_were_not_published_are_read_as_messages(store: Store) -> None:
    thoughtful, failed = requests(store)
    assert [request.schema_version for request in (thoughtful, failed)] == [1, 1]
    assert (thoughtful.verdict, failed.verdict) == ("trusted", "failed")
    assert [step.action.spoken() for step in thoughtful.steps] == [assistant(f"{ODD} 0"), assistant(f"{ODD} 1")]
    assert thoughtful.steps[0].observation == (user("Done 0."),)
    assert thoughtful.state(1)[1:] == (assistant(f"{ODD} 0"), user("Done 0."))
    assert BranchRequest.model_validate_json(thoughtful.to_json()) == thoughtful


def test_what_comes_later_joins_what_was_there(store: Store) -> None:
    assert status(store).trusted == {"train": 2}
    verdict = OutcomeEvent(event_id="late", episode_id="d-unjudged", verifier="game", success=True, score=1.0)
    again = branches("a-trusted", TASKS[Split.TRAIN][0], 1, ("jump",)).model_copy(update={"event_id": "again"})
    store.append(records([verdict], start=11))
    store.append([result(again, offset=2)])
    assert status(store).trusted == {"train": 3}
    assert requests(store)[-1].steps[0].action == assistant("go 0")
    jumps = "SELECT count(DISTINCT transition_id) FROM transitions WHERE action->>'content' = 'jump'"
    assert column(store, jumps) == [1]
    store.append(records(episode("e", TASKS[Split.TRAIN][3]), start=12))
    assert status(store).trusted == {"train": 4}


async def test_snapshots_learn_from_what_was_stored_before(store: Store, tmp_path: Path) -> None:
    with served(build_api(store), lifespan="off") as url:
        async with StoreClient(url) as client:
            snapshot = await build_snapshot(client, HOLDOUT, tmp_path / "snapshots")
    found = {one.episode_id[:1]: one for one in read_trajectories(snapshot.folder)}
    trusted, thoughtful, recovered = found["a"], found["b"], found["4"]
    assert [branch.action for branch in trusted.branches] == [assistant("jump"), assistant('say "hi"')]
    assert thoughtful.steps[0].action == assistant(f"{ODD} 0", reasoning='It says "open".')
    assert [step.action for step in recovered.steps] == [
        *(assistant("go 0"), assistant("back", reasoning="Go back.")),
        assistant("forward"),
    ]


@pytest.mark.parametrize("lacking", [["reasoning"], ["reasoning", "principal"]])
def test_files_of_the_first_versions_lack_columns(tmp_path: Path, lacking: list[str]) -> None:
    path = store_of_schema_1(
        tmp_path / "store.duckdb",
        *(f"ALTER TABLE transitions DROP COLUMN {name}" for name in lacking),
        *(f"ALTER TABLE recoveries DROP COLUMN {name}" for name in lacking if name == "principal"),
        "DROP TABLE fatalities",
    )
    store = opened_at(path)
    assert column(store, "SELECT action->>'content' FROM transitions WHERE episode_id = 'a-trusted'")[0] == "go 0"
    assert column(store, "SELECT count(principal) FROM transitions") == [0 if "principal" in lacking else 10]
    store.close()


def test_a_file_of_a_newer_version_is_refused_and_stays_as_it_is(path: Path) -> None:
    opened_at(path).close()
    with duckdb.connect(str(path)) as connection:
        connection.execute("INSERT INTO schema_version VALUES (3)")
    before = path.read_bytes()
    with pytest.raises(StoreError, match=r"has schema 3, and this version of Ratchet knows schemas up to 2: a newer"):
        opened_at(path)
    assert path.read_bytes() == before


def test_a_copy_that_cannot_be_made_leaves_everything_as_it_was(path: Path) -> None:
    before = content(path)
    path.with_name("store.duckdb.schema-1").mkdir()
    with pytest.raises(StoreError, match=r"could not be copied to .*schema-1 before: .*; nothing was changed"):
        opened_at(path)
    assert content(path) == before
    path.with_name("store.duckdb.schema-1").rmdir()
    opened_at(path).close()


@pytest.mark.skipif(os.getuid() != 0, reason="only root can try it as somebody else")
@pytest.mark.parametrize("place", ["file", "folder", "above"])
def test_a_store_that_cannot_be_written_is_refused_by_the_place_that_is_in_the_way(place: str) -> None:
    folder = Path(tempfile.mkdtemp())
    try:
        path = folder / "home" / "store.duckdb"
        if place != "above":
            path.parent.mkdir()
            opened_at(path).close()
            path.chmod(0o666 if place == "folder" else 0o644)
            path.parent.chmod(0o777 if place == "file" else 0o755)
        folder.chmod(0o755)
        refused = run(path, user=65534)
        wrong = {"file": path, "folder": path.parent, "above": folder}[place]
        assert refused.returncode == 1
        assert f"StoreError: the store {path} cannot be opened: {wrong} is not writable for this" in refused.stderr
    finally:
        shutil.rmtree(folder)


# The points of the copy, of the transaction, and of what closes an opening.
KILLED_AT = [
    *("file.rename:before", "file.rename:after", "store.migration:before", "store.migration:after"),
    *("store.checkpoint:before", "store.checkpoint:after"),
]


@pytest.mark.parametrize("crash_at", KILLED_AT)
def test_a_migration_that_is_killed_ends_the_same_when_it_is_started_again(path: Path, crash_at: str) -> None:
    undisturbed = shutil.copy(path, path.with_name("undisturbed"))
    assert run(Path(undisturbed)).returncode == 0
    before = content(path)
    assert run(path, crash_at).returncode == -signal.SIGKILL
    done = run(path)
    assert (done.returncode, done.stderr) == (0, "")
    assert content(path) == content(Path(undisturbed))
    assert content(path.with_name("store.duckdb.schema-1")) == before
    left = {"store.duckdb", "store.duckdb.schema-1", "undisturbed", "undisturbed.schema-1"}
    assert {found.name for found in path.parent.iterdir()} == left


def run(path: Path, crash_at: str = "", user: int | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", OPEN, str(path), str(os.getuid() if user is None else user)],
        cwd=ROOT,
        env={**os.environ, VARIABLE: crash_at},
        capture_output=True,
        text=True,
        timeout=60,
    )
