"""The home is its owner's alone: made so, tightened where it is not, and refused where it is somebody else's."""

import os
import stat
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from structlog.testing import capture_logs

from ratchet_client.errors import ConfigurationError
from streams.runtime.files import write_atomically
from streams.runtime.private_home import secure

MAKES_FILES = """
import sys
from pathlib import Path
from streams.runtime.files import write_atomically
from streams.runtime.private_home import keep_files_private, secure
from streams.store.settings import StoreSettings
from streams.store.writer import Store
from tests.builders.episodes import HOLDOUT, KAFKA, episode
from tests.builders.stored import Log
keep_files_private()
home = Path(sys.argv[1])
secure(home)
store = Store.open(StoreSettings(path=home / "store.duckdb"), HOLDOUT, KAFKA)
Log(store).publish(*episode("e"))
write_atomically(home / "deeper" / "refs.json", b"{}")
(home / "plain").write_text("x")
modes = {str(path.relative_to(home)): oct(path.stat().st_mode & 0o777) for path in (home, *home.rglob("*"))}
print(modes)
"""


def modes(home: Path) -> dict[str, int]:
    return {
        str(path.relative_to(home)): stat.S_IMODE(path.lstat().st_mode)
        for path in (home, *home.rglob("*"))
        if not path.is_symlink()
    }


def test_what_a_process_makes_in_its_home_is_for_its_owner_alone(tmp_path: Path) -> None:
    home = tmp_path / "home"
    made = subprocess.run([sys.executable, "-c", MAKES_FILES, str(home)], capture_output=True, text=True, umask=0o022)
    assert made.returncode == 0, made.stderr
    told: dict[str, str] = eval(made.stdout)  # the process's own dict of strings
    assert {"store.duckdb", "store.duckdb.wal", "plain", "deeper/refs.json"} <= told.keys()
    folders = {".", "deeper"}
    assert {name: mode for name, mode in told.items() if mode != ("0o700" if name in folders else "0o600")} == {}


def test_a_home_that_others_can_read_is_tightened_and_the_log_says_so_once(tmp_path: Path) -> None:
    home, elsewhere = tmp_path / "home", tmp_path / "elsewhere"
    write_atomically(home / "a" / "file", b"x", 0o644)
    write_atomically(elsewhere, b"x", 0o644)
    (home / "a" / "program").touch(0o755)
    (home / "a" / "program").chmod(0o755)
    (home / "link").symlink_to(elsewhere)
    for folder in (home, home / "a"):
        folder.chmod(0o755)
    with capture_logs() as logs:
        secure(home)
        secure(home)
    assert modes(home) == {".": 0o700, "a": 0o700, "a/file": 0o600, "a/program": 0o700}
    assert stat.S_IMODE(elsewhere.stat().st_mode) == 0o644
    assert [(entry["log_level"], entry["changed"]) for entry in logs] == [("warning", 4)]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_the_home_of_somebody_else_is_refused_and_stays_as_it_is(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir(0o755)
    home.chmod(0o755)
    os.chown(home, 4242, 4242)
    with pytest.raises(ConfigurationError, match="belongs to user 4242"):
        secure(home)
    assert stat.S_IMODE(home.stat().st_mode) == 0o755


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_a_volume_of_root_is_used_and_what_it_holds_of_others_is_left_alone() -> None:
    script = "import os, sys; os.setuid(4242); from pathlib import Path; secure(Path(sys.argv[1]))"
    # Not pytest's own folder, which only its owner may enter.
    with TemporaryDirectory() as folder:
        Path(folder).chmod(0o711)
        home = Path(folder) / "home"
        write_atomically(home / "own", b"x", 0o644)
        write_atomically(home / "other", b"x", 0o644)
        home.chmod(0o777)
        os.chown(home / "own", 4242, 4242)
        command = [sys.executable, "-c", f"from streams.runtime.private_home import secure; {script}", str(home)]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert modes(home) == {".": 0o777, "own": 0o600, "other": 0o644}
    assert "belongs to root" in done.stdout
