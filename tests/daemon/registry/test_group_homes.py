"""What covers a home covers the folders of its groups of agents and tenants: checks, backups and erasures."""

import asyncio
from pathlib import Path

import pytest

from daemon.backups.creating import create_backup
from daemon.backups.restoring import restore_backup
from daemon.erasure.carrying_out import carry_out
from daemon.erasure.request import ErasureRequest, ask
from daemon.registry.audit import Action
from daemon.registry.lifecycle import State
from daemon.registry.registry import AUDIT_FILE, REFS_FILE, Registry
from daemon.registry.verifying import verify
from streams.store.writer import Store
from streams.trust.groups import home_of
from streams.trust.holdout import Split
from tests.builders.episodes import HOLDOUT, KAFKA, TASKS
from tests.builders.stored import Log
from tests.builders.trained import entered
from tests.daemon.backups.test_backups import say, source_of
from tests.daemon.erasure.test_erasure import PLANTED, plays, settings_of, snapshot_of
from tests.daemon.registry.test_verifying import made


def files(home: Path) -> dict[str, bytes]:
    return {str(path.relative_to(home)): path.read_bytes() for path in home.rglob("*") if path.is_file()}


@pytest.mark.parametrize("name", [AUDIT_FILE, REFS_FILE])
def test_a_changed_file_of_a_group_is_named_by_its_path_below_the_home(tmp_path: Path, name: str) -> None:
    home = made(tmp_path / "home")
    group = made(home_of(home, "acme"))
    found = verify(home)
    assert (found.findings, found.adapters) == ((), 4)
    content = bytearray((group / name).read_bytes())
    content[len(content) // 2] ^= 1
    (group / name).write_bytes(content)
    assert f"groups/acme/{name}" in {finding.path for finding in verify(home).findings}


def test_a_backup_has_the_folders_of_groups_and_gives_them_back(tmp_path: Path) -> None:
    home = made(tmp_path / "home")
    group = made(home_of(home, "acme"))
    (group / "training").mkdir(exist_ok=True)
    (group / "training" / "checkpoint").write_text("half")
    asyncio.run(create_backup(source_of(home), tmp_path / "backup", say))
    restored = restore_backup(tmp_path / "backup", tmp_path / "again", say)
    assert restored.findings == ()
    kept = {name: content for name, content in files(group).items() if not name.startswith("training/")}
    assert files(home_of(restored.home, "acme")) == kept
    assert Registry(home_of(restored.home, "acme")).refs() == Registry(group).refs()


def test_an_erasure_takes_the_adapters_of_groups_that_learned_from_what_is_erased(tmp_path: Path) -> None:
    home = tmp_path / "home"
    groups = {name: Registry(home_of(home, name)) for name in ("acme", "other")}
    store = Store.open(settings_of(home), HOLDOUT, KAFKA)
    log, tasks = Log(store), TASKS[Split.TRAIN]
    plays(log, "stays", tasks[0], "hello")
    clean = entered(groups["other"].home, snapshot_of(store, groups["other"].home), weights="clean")
    plays(log, "leaves", tasks[1], PLANTED)
    saw = entered(groups["acme"].home, snapshot_of(store, groups["acme"].home), weights="saw")
    store.close()
    for registry, adapter in ((groups["acme"], saw), (groups["other"], clean)):
        for state in (State.TRAINED, State.EVALUATING, State.REJECTED):
            registry.enter(adapter, state, "learner", "a test")
    ask(home, ErasureRequest(principal="leaves", actor="anna"))
    report = carry_out(home, settings_of(home))
    assert report is not None
    assert report.erasure.adapters == (saw,)
    assert not groups["acme"].adapter_folder(saw).exists()
    assert groups["other"].adapter_folder(clean).exists()
    assert groups["acme"].state(saw) is State.QUARANTINED
    (entry,) = [each for each in groups["acme"].audit.read() if each.action is Action.ERASED]
    assert entry.erasure is not None
    assert entry.erasure.removed(f"adapters/{saw}/gate.json")
    assert Action.ERASED not in {each.action for each in groups["other"].audit.read()}
    assert verify(home).findings == ()
    assert [name for name, content in files(home).items() if PLANTED.encode() in content] == []
