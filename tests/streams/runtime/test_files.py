import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from streams.runtime.files import move_into_place, new_folder, secret_key, write_atomically


def test_a_file_is_replaced_and_nothing_else_is_left_in_its_folder(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "refs.json"
    write_atomically(path, b"old")
    write_atomically(path, b"new")
    assert path.read_bytes() == b"new"
    assert os.listdir(path.parent) == ["refs.json"]


def test_a_write_that_fails_leaves_the_old_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "refs.json"
    write_atomically(path, b"old")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["refs.json"]


def test_a_folder_appears_whole_and_every_part_of_it_was_synced_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "deep" / "snapshot"
    synced: set[str] = set()
    sync, rename = os.fsync, os.rename

    def noted(descriptor: int) -> None:
        synced.add(Path(os.readlink(f"/proc/self/fd/{descriptor}")).name)
        sync(descriptor)

    def renamed(source: Path, target: Path) -> None:
        assert synced == {source.name, "manifest", "inner", "weights"}
        rename(source, target)

    monkeypatch.setattr(os, "fsync", noted)
    monkeypatch.setattr(os, "rename", renamed)
    with new_folder(path.parent) as folder:
        (folder / "manifest").write_text("all of it")
        (folder / "inner").mkdir()
        (folder / "inner" / "weights").write_text("1 2 3")
        move_into_place(folder, path)
    assert (path / "inner" / "weights").read_text() == "1 2 3"
    assert os.listdir(path.parent) == ["snapshot"]
    assert "deep" in synced


def test_a_folder_that_fails_to_be_filled_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), new_folder(tmp_path) as folder:
        (folder / "missing" / "weights").write_text("1 2")
    assert os.listdir(tmp_path) == []


def test_a_process_that_dies_while_it_fills_a_folder_leaves_nothing_under_its_name(tmp_path: Path) -> None:
    script = """if True:
        import os, signal, sys
        from pathlib import Path
        from streams.runtime.files import move_into_place, new_folder
        with new_folder(Path(sys.argv[1])) as folder:
            (folder / "weights").write_text("1 2")
            os.kill(os.getpid(), signal.SIGKILL)
            move_into_place(folder, Path(sys.argv[1], "adapter"))
    """
    died = subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=False)
    assert died.returncode == -signal.SIGKILL
    (left,) = os.listdir(tmp_path)
    assert left.startswith(".new-")


def test_a_folder_that_is_there_already_stays(tmp_path: Path) -> None:
    path = tmp_path / "adapter"
    for content in ("first", "second"):
        with new_folder(tmp_path) as folder:
            (folder / "weights").write_text(content)
            move_into_place(folder, path)
    assert (path / "weights").read_text() == "first"
    assert os.listdir(tmp_path) == ["adapter"]


def test_processes_that_make_a_key_at_the_same_time_have_the_same_one(tmp_path: Path) -> None:
    path = tmp_path / "home" / "redaction.key"
    program = (
        "import sys; from pathlib import Path; from streams.runtime.files import secret_key; "
        f"sys.stdin.read(); print(secret_key(Path({str(path)!r})).hex())"
    )
    command = [sys.executable, "-c", program]
    makers = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    for maker in makers:
        assert maker.stdin is not None
        maker.stdin.close()
    keys = {maker.stdout.read().strip() for maker in makers if maker.stdout is not None}
    assert [maker.wait(60) for maker in makers] == [0] * 4
    assert keys == {secret_key(path).hex()}
    assert len(secret_key(path)) == 32
    assert path.stat().st_mode & 0o777 == 0o600
    assert sorted(os.listdir(path.parent)) == ["redaction.key", "redaction.key.sha256"]


def test_a_key_that_another_made_meanwhile_is_not_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "redaction.key"
    exists = Path.exists

    def overtaken(self: Path) -> bool:
        found = exists(self)
        if self == path and not found:
            path.write_bytes(b"the other's")
        return found

    monkeypatch.setattr(Path, "exists", overtaken)
    assert secret_key(path) == b"the other's"
    assert sorted(os.listdir(tmp_path)) == ["redaction.key", "redaction.key.sha256"]
