"""A backlog on a real disk: what a killed process leaves, and what each next one finds."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from streams.producer.segment import Entry
from streams.producer.spool import Spool

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
    return sorted(path for path in folder.rglob("*.spool"))


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
    for number in range(40):
        spool.append(entries(number, number + 1, size=100_000))
    assert len(files(tmp_path)) > 3
    assert drained(spool) == entries(0, 40, size=100_000)
    assert [path.stat().st_size for path in files(tmp_path)] == [16]
    spool.close()
    assert files(tmp_path) == []


def test_it_keeps_the_oldest_entries_up_to_its_size_limit(tmp_path: Path) -> None:
    spool = Spool(tmp_path, 1000)
    taken = spool.append(entries(0, 100))
    assert 10 < taken < 100
    assert spool.append(entries(100, 101)) == 0
    assert drained(spool) == entries(0, taken)
    assert spool.append(entries(100, 101)) == 1
    spool.close()


def test_the_next_owner_finds_the_unacknowledged_entries(tmp_path: Path) -> None:
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
        "import os, signal, sys\nfrom pathlib import Path\nfrom streams.producer.segment import Entry\n"
        "from streams.producer.spool import Spool\nspool = Spool(Path(sys.argv[1]), 10**7)\n"
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


@pytest.mark.parametrize("cut", [1, 5, 20, 40])
def test_a_torn_entry_at_the_end_is_ignored(tmp_path: Path, cut: int) -> None:
    first = Spool(tmp_path, ROOM)
    first.append(entries(0, 10))
    first.close()
    (path,) = files(tmp_path)
    os.truncate(path, path.stat().st_size - cut)
    second = Spool(tmp_path, ROOM)
    second.append(entries(10, 12))
    kept = drained(second)
    assert kept == [*entries(0, 9 if cut < 33 else 8), *entries(10, 12)]
    second.close()
    assert files(tmp_path) == []


def test_a_flipped_bit_loses_entries_of_its_own_file_only(tmp_path: Path) -> None:
    first = Spool(tmp_path, ROOM)
    for number in range(3):
        first.append(entries(number, number + 1, size=1_100_000))
    first.close()
    damaged = bytearray(files(tmp_path)[1].read_bytes())
    damaged[500] ^= 1
    files(tmp_path)[1].write_bytes(damaged)
    second = Spool(tmp_path, ROOM)
    assert [int(entry.value) for entry in drained(second)] == [0, 2]
    second.close()


def test_a_removed_file_does_not_stop_the_spool(tmp_path: Path, spool: Spool) -> None:
    spool.append(entries(0, 10))
    files(tmp_path)[0].unlink()
    assert drained(spool) == []
    spool.append(entries(10, 12))
    assert drained(spool) == entries(10, 12)


def test_a_file_of_another_format_is_left_alone(tmp_path: Path) -> None:
    first = Spool(tmp_path, ROOM)
    first.append(entries(0, 1))
    first.close()
    files(tmp_path)[0].write_bytes(b"RTCHSPL2 of a later version")
    second = Spool(tmp_path, ROOM)
    second.append(entries(1, 2))
    assert drained(second) == entries(1, 2)
    second.close()
    assert [path.read_bytes() for path in files(tmp_path)] == [b"RTCHSPL2 of a later version"]


def test_a_failed_write_leaves_no_partial_entry(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    spool.append(entries(0, 5))
    write = os.pwrite

    def half(descriptor: int, data: memoryview, offset: int) -> int:
        write(descriptor, data[: len(data) // 2], offset)
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as full:
        full.setattr(os, "pwrite", half)
        with pytest.raises(OSError, match="No space"):
            spool.append(entries(5, 8))
    spool.append(entries(8, 10))
    assert drained(spool) == [*entries(0, 5), *entries(8, 10)]
