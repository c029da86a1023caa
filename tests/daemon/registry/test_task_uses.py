"""The file of the account: nothing counted is lost, nothing is counted twice, whatever a crash leaves behind."""

import multiprocessing
from datetime import UTC, datetime
from pathlib import Path

import pytest

from daemon.registry.registry import Registry
from daemon.registry.task_uses import TASK_USES_FILE, TaskUses, account_summary, readable_summary
from evaluation.task_account import ListName, TrialBegun
from streams.errors import RegistryError

SELECTION, CONFIRMATION = ListName.SELECTION, ListName.CONFIRMATION


def begun(trial: str) -> TrialBegun:
    return TrialBegun(
        trial=trial,
        adapter="a" * 64,
        generation=1,
        promotions=0,
        selection=2,
        confirmation=1,
        fresh=1,
        rotate_after=50,
        at=datetime.now(UTC),
    )


def test_uses_are_kept_with_their_list_their_gate_and_when(tmp_path: Path) -> None:
    uses = TaskUses(tmp_path)
    assert uses.account().uses() == {}
    uses.begin(begun("one"))
    uses.count("one", "improvement", [(SELECTION, "a"), (SELECTION, "b"), (CONFIRMATION, "c")])
    account = TaskUses(tmp_path).account()
    assert account.uses() == {"a": 1, "b": 1, "c": 1}
    assert [(entry.gate, entry.list, entry.tasks) for entry in account.used] == [
        ("improvement", SELECTION, ("a", "b")),
        ("improvement", CONFIRMATION, ("c",)),
    ]
    assert (datetime.now(UTC) - account.used[0].at).total_seconds() < 60


def test_a_trial_that_is_resumed_counts_nothing_twice_and_another_counts_again(tmp_path: Path) -> None:
    uses = TaskUses(tmp_path)
    for _ in range(2):
        uses.begin(begun("one"))
        uses.count("one", "improvement", [(SELECTION, "a"), (SELECTION, "a"), (SELECTION, "b")])
        uses.count("one", "sentinels", [(SELECTION, "b")])
    assert uses.account().uses() == {"a": 1, "b": 1}
    assert len(uses.account().trials) == 1
    assert [entry.tasks for entry in uses.account().used] == [("a", "b")]
    uses.count("two", "improvement", [(SELECTION, "a")])
    assert uses.account().uses() == {"a": 2, "b": 1}
    assert uses.account().uses(without="two") == {"a": 1, "b": 1}


@pytest.mark.parametrize("torn", [b'{"kind": "used", "tri', b"\xff\x00"])
def test_a_line_that_a_crash_tore_is_passed_over_and_then_removed(torn: bytes, tmp_path: Path) -> None:
    uses = TaskUses(tmp_path)
    uses.count("one", "improvement", [(SELECTION, "a")])
    with (tmp_path / TASK_USES_FILE).open("ab") as file:
        file.write(torn)
    assert uses.account().uses() == {"a": 1}
    uses.count("one", "improvement", [(SELECTION, "b")])
    assert uses.account().uses() == {"a": 1, "b": 1}
    assert torn not in (tmp_path / TASK_USES_FILE).read_bytes()


def test_a_line_that_is_no_entry_is_named(tmp_path: Path) -> None:
    (tmp_path / TASK_USES_FILE).write_bytes(b'{"kind": "used"}\n')
    with pytest.raises(RegistryError, match=r"task_uses\.jsonl, line 1, is not an entry"):
        TaskUses(tmp_path).account()


def test_processes_that_count_at_once_lose_nothing(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    counting = [context.Process(target=_count, args=(tmp_path, number)) for number in range(3)]
    for process in counting:
        process.start()
    for process in counting:
        process.join(30)
    assert len(TaskUses(tmp_path).account().uses()) == 60


def _count(home: Path, number: int) -> None:
    for task in range(20):
        TaskUses(home).count(f"trial {number}", "improvement", [(SELECTION, f"{number}/{task}")])


def test_a_damaged_account_hides_nothing_else(tmp_path: Path) -> None:
    registry = Registry(tmp_path)
    assert readable_summary(registry) == account_summary(registry)
    uses = TaskUses(registry.home)
    uses.path.write_text('{"kind": "torn"}\n')
    assert readable_summary(registry) is None
    with pytest.raises(RegistryError, match=r"line 1, is not an entry"):
        account_summary(registry)
