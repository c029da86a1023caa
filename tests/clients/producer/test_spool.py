"""A backlog on a real disk: what a killed process leaves, and what each next one finds."""

import os
import random
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from ratchet_client.producer.backlog import Backlog
from ratchet_client.producer.spool import Spool
from ratchet_client.producer.spool_file import Entry

ROOM = 10 * 2**20


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    opened = Spool(tmp_path / "spool", ROOM)
    yield opened
    opened.close()


def entries(first: int, last: int, size: int = 10) -> list[Entry]:
    return [Entry(b"episode", str(number).encode().rjust(size)) for number in range(first, last)]


def drained(spool: Spool, limit_bytes: int = 1000) -> list[Entry]:
    """Everything it holds, acknowledged piece by piece."""
    spool.open()
    found: list[Entry] = []
    while taken := spool.head(limit_bytes):
        found += taken
        assert spool.discard(taken) == len(taken)
    return found


def files(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.sqlite"))


@contextmanager
def full_disk() -> Iterator[None]:
    """No file of this process can grow beyond 20 kB."""
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))


def test_entries_come_in_the_order_of_their_appending(spool: Spool) -> None:
    spool.append(entries(0, 30))
    taken = spool.head(200)
    assert taken == entries(0, len(taken))
    assert 1 < len(taken) < 30
    assert spool.discard(taken) == len(taken)
    spool.append(entries(30, 50))
    assert drained(spool) == entries(len(taken), 50)
    assert spool.size == 0


def test_nothing_is_written_before_the_first_entry(tmp_path: Path) -> None:
    Spool(tmp_path / "spool", ROOM).close()
    assert os.listdir(tmp_path) == []


def test_acknowledged_entries_free_their_space(tmp_path: Path, spool: Spool) -> None:
    spool.append(entries(0, 40, size=100_000))
    spool.close()
    assert files(tmp_path)[0].stat().st_size > 4_000_000
    spool.open()
    spool.discard(entries(0, 39, size=100_000))
    spool.close()
    assert files(tmp_path)[0].stat().st_size < 200_000
    assert drained(spool) == entries(39, 40, size=100_000)
    spool.close()
    assert files(tmp_path) == []


@pytest.mark.parametrize("size", [10, 2100, 100_000])
def test_it_takes_the_oldest_and_its_file_grows_no_larger_than_allowed(tmp_path: Path, size: int) -> None:
    spool = Spool(tmp_path, 1_000_000)
    taken = 0
    while spool.append(entries(taken, taken + 1, size)):
        taken += 1
    spool.close()
    assert 800_000 < files(tmp_path)[0].stat().st_size < 1_000_000 + 8192
    assert drained(spool) == entries(0, taken, size)
    assert spool.append(entries(taken, taken + 10, size)) > 1
    spool.close()


def test_others_cannot_read_it(tmp_path: Path, spool: Spool) -> None:
    spool.append(entries(0, 1))
    made = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(made) == 4
    assert {path.stat().st_mode & 0o777 for path in made} == {0o600}


def test_the_next_owner_finds_what_was_not_acknowledged(tmp_path: Path) -> None:
    first = Spool(tmp_path, ROOM)
    first.append(entries(0, 10))
    first.discard(first.head(1)[:1])
    first.close()
    second = Spool(tmp_path, ROOM)
    assert drained(second) == entries(1, 10)
    second.close()
    assert [path.name for path in tmp_path.iterdir()] == ["lock"]


def test_entries_of_ended_processes_come_before_new_ones(tmp_path: Path) -> None:
    left = [Spool(tmp_path, ROOM) for _ in range(3)]
    for spool in left:
        spool.open()
    for number, spool in enumerate(left):
        spool.append(entries(number, number + 1))
    for spool in reversed(left):
        spool.close()
    owner = Spool(tmp_path, ROOM)
    owner.append(entries(3, 5))
    assert drained(owner) == entries(0, 5)
    owner.close()


def test_a_folder_in_use_is_not_taken_over(tmp_path: Path, spool: Spool) -> None:
    spool.append(entries(0, 5))
    other = Spool(tmp_path / "spool", ROOM)
    assert drained(other) == []
    other.close()
    assert drained(spool) == entries(0, 5)


def test_a_killed_process_leaves_all_that_it_appended(tmp_path: Path) -> None:
    script = (
        "import os, signal, sys\nfrom pathlib import Path\nfrom ratchet_client.producer.spool_file import Entry\n"
        "from ratchet_client.producer.spool import Spool\nspool = Spool(Path(sys.argv[1]), 10**7)\n"
        "for number in range(100):\n    spool.append([Entry(b'episode', str(number).encode().rjust(10))])\n"
        "spool.discard(spool.head(200))\nos.kill(os.getpid(), signal.SIGKILL)"
    )
    killed = subprocess.run([sys.executable, "-c", script, str(tmp_path)], timeout=60, check=False)
    assert killed.returncode == -signal.SIGKILL
    spool = Spool(tmp_path, ROOM)
    found = drained(spool)
    assert found == entries(100 - len(found), 100)
    assert 80 < len(found) < 100
    spool.close()


def test_a_process_appends_to_what_an_ended_one_left(tmp_path: Path) -> None:
    for number in range(5):
        spool = Spool(tmp_path, ROOM)
        spool.append(entries(number, number + 1))
        spool.close()
    assert len(files(tmp_path)) == 1
    spool = Spool(tmp_path, ROOM)
    assert drained(spool) == entries(0, 5)
    spool.close()


def test_what_is_acknowledged_after_the_end_is_the_next_owners(tmp_path: Path) -> None:
    backlog = Backlog(ROOM, Spool(tmp_path, ROOM))
    backlog.open()
    for entry in entries(0, 5):
        assert backlog.put(entry)
    taken = backlog.head(1000)
    backlog.spill()
    backlog.close()
    backlog.discard(taken)
    assert (backlog.queued, backlog.put_on_disk(taken[0])) == (0, False)
    spool = Spool(tmp_path, ROOM)
    assert drained(spool) == taken == entries(0, 5)
    spool.close()


def test_a_folder_whose_removal_was_cut_short_is_removed(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "lock").touch()
    spool = Spool(tmp_path, ROOM)
    assert drained(spool) == []
    spool.close()
    assert [path.name for path in tmp_path.iterdir()] == ["lock"]


def test_a_flipped_bit_costs_the_entry_it_is_in(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    first = Spool(tmp_path, ROOM)
    first.append(entries(0, 10, size=10_000))
    first.close()
    damaged = bytearray(files(tmp_path)[0].read_bytes())
    damaged[damaged.index(b" 4") - 5000] ^= 1
    files(tmp_path)[0].write_bytes(damaged)
    second = Spool(tmp_path, ROOM)
    assert [int(entry.value) for entry in drained(second)] == [0, 1, 2, 3, 5, 6, 7, 8, 9]
    assert "10031 bytes are damaged or gone" in caplog.text
    second.close()
    assert files(tmp_path) == []


def test_a_flipped_bit_anywhere_stops_nothing_and_gives_nothing_that_was_not_put(tmp_path: Path) -> None:
    whole, chance = entries(0, 60, size=300), random.Random(7)
    first = Spool(tmp_path / "sound", ROOM)
    first.append(whole)
    first.close()
    (sound,) = files(tmp_path)
    # These make the file one to be read only, and one of an unknown format.
    for bit in (145, 377, *(chance.randrange(8 * sound.stat().st_size) for _ in range(100))):
        data = bytearray(sound.read_bytes())
        data[bit // 8] ^= 1 << bit % 8
        root = tmp_path / str(bit)
        shutil.copytree(tmp_path / "sound", root)
        (root / sound.relative_to(tmp_path / "sound")).write_bytes(data)
        spool = Spool(root, ROOM)
        found = drained(spool)
        assert found == [entry for entry in whole if entry in found]
        with suppress(sqlite3.DatabaseError):  # at the first append, a file may turn out to be damaged
            spool.append(whole[:1])
        spool.append(whole[-1:])
        assert drained(spool)[-1:] == whole[-1:]
        spool.close()


@pytest.mark.parametrize(("damaged_page", "readable"), [(14, range(30, 60)), (0, range(1))])
def test_a_damaged_file_is_read_as_far_as_possible_and_set_aside(
    tmp_path: Path, damaged_page: int, readable: range, caplog: pytest.LogCaptureFixture
) -> None:
    first = Spool(tmp_path, ROOM)
    first.append(entries(0, 100, size=1000))
    first.close()
    with files(tmp_path)[0].open("r+b") as file:
        file.seek(4096 * damaged_page)
        file.write(b"\xff" * 4096)
    second = Spool(tmp_path, ROOM)
    found = drained(second, 10**6)
    assert len(found) in readable
    second.append(entries(100, 102))
    assert [*found, *drained(second)] == [*entries(0, len(found), size=1000), *entries(100, 102)]
    second.close()
    (aside,) = files(tmp_path)
    assert aside.parent.suffix == ".damaged"
    assert f"{aside.parent.with_suffix('')} is damaged" in caplog.text
    third = Spool(tmp_path, ROOM)
    assert drained(third) == []
    third.close()


def test_a_removed_file_does_not_stop_the_spool(tmp_path: Path, spool: Spool) -> None:
    spool.append(entries(0, 10))
    files(tmp_path)[0].unlink()
    assert drained(spool) == entries(0, 10)
    spool.append(entries(10, 12))
    assert drained(spool) == entries(10, 12)


def test_what_another_version_left_is_left_alone_and_reported(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = tmp_path / "019a0000-0000-7000-8000-000000000000"
    folder.mkdir()
    (folder / "lock").touch()
    (folder / "00000000001764288000-019a.spool").write_bytes(b"RTCHSPL1 of version 0.1")
    spool = Spool(tmp_path, ROOM)
    spool.append(entries(1, 2))
    assert drained(spool) == entries(1, 2)
    spool.close()
    assert sorted(path.name for path in folder.iterdir()) == ["00000000001764288000-019a.spool", "lock"]
    assert f"{folder} is not in the format of this version" in caplog.text


def test_a_full_disk_leaves_nothing_half_written(spool: Spool) -> None:
    spool.append(entries(0, 5))
    with full_disk(), pytest.raises(sqlite3.OperationalError):
        spool.append(entries(5, 8, size=100_000))
    spool.append(entries(8, 10))
    assert drained(spool) == [*entries(0, 5), *entries(8, 10)]


def test_what_is_acknowledged_on_a_full_disk_is_not_sent_again(spool: Spool) -> None:
    spool.append(entries(0, 5, size=100_000))
    with full_disk():
        taken = spool.head(250_000)
        with pytest.raises(sqlite3.OperationalError):
            spool.discard(taken)
        assert spool.head(1) == entries(2, 3, size=100_000)
    assert drained(spool) == entries(2, 5, size=100_000)
