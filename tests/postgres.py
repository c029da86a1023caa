"""A PostgreSQL of the tests' own on loopback, for lakes."""

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from streams.runtime.processes import die_with_parent, free_port
from tests.waiting import until

START_TIMEOUT_S = 60.0
# Its databases end with the tests, so none of them waits for a disk.
_FORGETFUL = ("fsync=off", "synchronous_commit=off", "full_page_writes=off")


@dataclass(frozen=True, slots=True)
class Postgres:
    """A running server."""

    programs: Path
    port: int
    pid: int

    def database(self) -> str:
        """A new database, as a libpq connection string."""
        name = f"lake_{time.time_ns()}"
        self.run("createdb", name)
        return f"host=127.0.0.1 port={self.port} user=ratchet dbname={name}"

    def dump(self, database: str) -> str:
        """All rows of a database that `database` made, as statements."""
        return self.run("pg_dump", "--inserts", database.rpartition("dbname=")[2])

    def run(self, program: str, *arguments: str) -> str:
        at = ("-h", "127.0.0.1", "-p", str(self.port), "-U", "ratchet")
        command = [str(self.programs / program), *at, *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    def ready(self) -> bool:
        try:
            self.run("pg_isready")
        except subprocess.CalledProcessError:
            return False
        return True


@contextmanager
def running_postgres() -> Iterator[Postgres]:
    """A server with an empty folder. Skips the test where PostgreSQL or the extra `lake` is not installed."""
    for extension in ("duckdb_extension_ducklake", "duckdb_extension_postgres_scanner"):
        pytest.importorskip(extension, reason="no DuckLake: pip install 'ratchetd[lake]' to run this test")
    initdb = shutil.which("initdb") or max(map(str, Path("/usr/lib/postgresql").glob("*/bin/initdb")), default=None)
    if initdb is None:
        pytest.skip("no PostgreSQL is installed: put its initdb on PATH to run this test")
    programs, port, parent = Path(initdb).resolve().parent, free_port(), os.getpid()
    identity: dict[str, Any] = {}
    folder = Path(tempfile.mkdtemp(prefix="ratchet-postgres-"))
    if os.geteuid() == 0:
        # PostgreSQL refuses to run as root.
        account = next((found for found in pwd.getpwall() if found.pw_name in ("postgres", "nobody")), None)
        if account is None:
            pytest.skip("PostgreSQL does not run as root: add a user postgres to run this test")
        identity = {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}
        os.chown(folder, account.pw_uid, account.pw_gid)
    settle = [initdb, "-D", str(folder / "data"), "-U", "ratchet", "-A", "trust", "-E", "UTF8", "--locale=C", "-N"]
    subprocess.run(settle, check=True, stdout=subprocess.DEVNULL, cwd=folder, **identity)
    listen = ("-h", "127.0.0.1", "-p", str(port), "-k", "")
    command = [str(programs / "postgres"), "-D", str(folder / "data"), *listen]
    process = subprocess.Popen(
        [*command, *(word for setting in _FORGETFUL for word in ("-c", setting))],
        stderr=subprocess.DEVNULL,
        cwd=folder,
        preexec_fn=lambda: die_with_parent(parent),
        **identity,
    )
    server = Postgres(programs, port, process.pid)
    until(lambda: process.poll() is not None or server.ready(), "PostgreSQL starts", within_s=START_TIMEOUT_S)
    assert process.poll() is None, "PostgreSQL did not start"
    yield server
    process.send_signal(signal.SIGQUIT)
    process.wait(30)
    shutil.rmtree(folder)
