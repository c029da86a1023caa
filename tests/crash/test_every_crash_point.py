"""Each named crash point is hit by SIGKILL once; after a restart nothing is lost, nothing doubled, all converges."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from learners.snapshots import read_trajectories
from ratchet_client.crash_points import VARIABLE, CrashPoint
from ratchet_client.ids import uuid7
from streams.kafka.broker import EmbeddedBroker
from streams.kafka.settings import KafkaSettings
from streams.store.settings import LakeSettings
from tests.crash.load import Recording
from tests.crash.stage import AGENTS, LIBRARY, LOADS, on_stage, played
from tests.crash.test_champion import CHAMPION
from tests.crash.test_trials import TRIAL
from tests.crash.victims import ROOT
from tests.streams.store.test_migrations import KILLED_AT

REACHED_WITHIN_S = 90.0
BATCHES = 6

RENAMED_FILE = """
import sys
from pathlib import Path
from streams.runtime.files import write_atomically
write_atomically(Path(sys.argv[1]) / "ref", sys.argv[2].encode() * 100_000)
"""
RENAMED_SNAPSHOT = """
import sys
from pathlib import Path
from learners.snapshots import write_snapshot
from learners.trajectories import Trajectory
from ratchet_client.events import Message
from streams.branch_events import RecordedStep
from streams.trust.holdout import HoldoutSettings
trajectory = Trajectory(
    episode_id="episode", task_id="twc/train/1", opening=(Message(role="user", content="You are in a kitchen."),),
    steps=(RecordedStep(action="look", observation="A kitchen."),), branches=(), actor_kind="expert", adapter=None,
    principals=("tenant/user",),
)
holdout = HoldoutSettings(selection=0.0, confirmation=0.0)
print(write_snapshot([trajectory], holdout, Path(sys.argv[1]), as_of=1, offsets={}).folder)
"""

# A new store's first transaction adopts the log, the second stores records, the third marks the outbox as published.
RECORDER = [
    *("outbox.publish:before", "outbox.publish:after", "dead-letters.publish:before", "dead-letters.publish:after"),
    *("store.checkpoint:before", "store.checkpoint:after"),
    *("store.insert:before", "store.insert:before@2", "store.insert:before@3"),
    *("store.insert:after", "store.insert:after@2", "store.insert:after@3"),
    *("store.commit:before", "store.commit:before@2", "store.commit:before@3"),
    *("store.commit:after", "store.commit:after@2", "store.commit:after@3"),
    *("log.ack:before", "log.ack:after", "group.commit:before", "group.commit:after"),
]
BRANCHER = [
    *("results.publish:before", "results.publish:after"),
    *("log.ack:before", "log.ack:after", "group.commit:before", "group.commit:after"),
]
# The last one dies again while it sends what it had left behind.
LIBRARY_AGENTS = [
    *("spool.commit:before", "spool.commit:after"),
    *("producer.send:before", "producer.send:after", "producer.ack:after"),
    "producer.send:after producer.ack:after",
]
FOR_EACH_CHANGE = {"store.commit:after@2", "producer.send:after"}
FILE = ["file.rename:before", "file.rename:after"]
# tests/daemon kills at each of their steps.
MAINTENANCE = ["backup.step:before", "erasure.step:before", "upgrade.step:before"]
SNAPSHOT = ["snapshot.rename:before", "snapshot.rename:after"]


def test_every_crash_point_has_a_test_that_kills_at_it() -> None:
    places = " ".join(
        (*RECORDER, *BRANCHER, *LIBRARY_AGENTS, *FILE, *SNAPSHOT, *CHAMPION, *TRIAL, *KILLED_AT, *MAINTENANCE)
    ).split()
    hit = {place.partition("@")[0] for place in places}
    assert hit == set(CrashPoint)


@pytest.fixture(scope="module")
def recordings() -> tuple[Recording, ...]:
    return played(training=2)


@pytest.fixture
def kafka() -> Iterator[KafkaSettings]:
    with EmbeddedBroker() as broker:
        yield KafkaSettings(bootstrap=broker.bootstrap, session_timeout_s=2, partitions=2, group_prefix=uuid7())


def cases() -> Iterator[object]:
    """Every place once; the few that have caught most are for each change, all the others for the night."""
    for name, of_name in (("recorder", RECORDER), ("brancher-0", BRANCHER), (LIBRARY, LIBRARY_AGENTS)):
        for places in of_name:
            mark = pytest.mark.slow if places in FOR_EACH_CHANGE else pytest.mark.nightly
            yield pytest.param(name, places, marks=mark)


@pytest.mark.parametrize(("name", "places"), cases())
def test_a_process_killed_at_a_crash_point_loses_and_duplicates_nothing(
    name: str, places: str, kafka: KafkaSettings, recordings: tuple[Recording, ...], tmp_path: Path
) -> None:
    loads = LOADS if name == LIBRARY else (AGENTS,)
    with on_stage(kafka, tmp_path, recordings, loads=loads, batches=BATCHES, pause_s=0.2) as stage:
        doomed = next(victim for victim in stage.victims if victim.name == name)
        for victim in stage.victims:
            if victim is not doomed:
                victim.start()
        for place in places.split():
            doomed.start(place)
            stage.wait_until(f"{place} is reached", lambda: doomed.status == -signal.SIGKILL, REACHED_WITHIN_S)
        doomed.start()
        stage.wait_until("everything is stored and branched", stage.drained)
        assert stage.findings() == []


def cases_of_a_lake() -> Iterator[object]:
    """Those of a writer, but for the opening of a file."""
    for place in RECORDER:
        if not place.startswith("store.checkpoint"):
            yield pytest.param(place, marks=pytest.mark.slow if place in FOR_EACH_CHANGE else pytest.mark.nightly)


@pytest.mark.parametrize("place", cases_of_a_lake())
def test_a_writer_of_a_lake_killed_at_a_crash_point_loses_and_duplicates_nothing_beside_another(
    place: str, kafka: KafkaSettings, recordings: tuple[Recording, ...], lake: LakeSettings, tmp_path: Path
) -> None:
    with on_stage(kafka, tmp_path, recordings, loads=(AGENTS,), pause_s=1.0, lake=lake) as stage:
        # They publish until it is reached, since the other writer may store all that there is.
        stage.recorder.start(place)
        for victim in stage.victims:
            if victim is not stage.recorder:
                victim.start()
        stage.wait_until(f"{place} is reached", lambda: stage.recorder.status == -signal.SIGKILL, REACHED_WITHIN_S)
        stage.recorder.start()
        stage.stop.touch()
        stage.wait_until("everything is stored and branched", stage.drained)
        assert stage.findings() == []


@pytest.mark.parametrize("place", FILE)
def test_a_file_whose_writer_dies_at_the_rename_holds_the_old_or_the_new_content(place: str, tmp_path: Path) -> None:
    def write(letter: str, crash_at: str = "") -> int:
        return run(RENAMED_FILE, crash_at, str(tmp_path), letter).returncode

    assert write("a") == 0
    assert write("b", place) == -signal.SIGKILL
    assert (tmp_path / "ref").read_text() == ("a" if place == "file.rename:before" else "b") * 100_000
    assert write("c") == 0
    assert (tmp_path / "ref").read_text() == "c" * 100_000


@pytest.mark.parametrize("place", SNAPSHOT)
def test_a_snapshot_whose_builder_dies_at_the_rename_is_complete_or_absent(place: str, tmp_path: Path) -> None:
    assert run(RENAMED_SNAPSHOT, place, str(tmp_path)).returncode == -signal.SIGKILL
    whole = [folder for folder in tmp_path.iterdir() if not folder.name.startswith(".")]
    assert len(whole) == (place == "snapshot.rename:after")
    again = run(RENAMED_SNAPSHOT, "", str(tmp_path))
    assert [trajectory.episode_id for trajectory in read_trajectories(Path(again.stdout.strip()))] == ["episode"]


def run(script: str, crash_at: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", script, *arguments],
        cwd=ROOT,
        env={**os.environ, VARIABLE: crash_at},
        capture_output=True,
        text=True,
        timeout=60,
    )
