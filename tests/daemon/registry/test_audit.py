import json
from multiprocessing import get_context
from pathlib import Path

import pytest

from daemon.registry.audit import Action, AuditEvent, AuditLog
from daemon.registry.lifecycle import State
from ratchet_client.errors import RatchetError
from streams.errors import AuditError


def audit_event(reason: str = "because") -> AuditEvent:
    return AuditEvent(actor="anna", action=Action.MOVED, subject="a" * 64, reason=reason, state=State.TRAINED)


def log_of_three(folder: Path) -> AuditLog:
    log = AuditLog(folder / "home" / "audit.jsonl")
    for reason in ("first", "second", "third: naïve “quotes”\nand a new line"):
        log.append(audit_event(reason))
    return log


def test_what_is_appended_is_read_back_in_order_and_verifies(tmp_path: Path) -> None:
    log = log_of_three(tmp_path)
    entries = log.read()
    assert [entry.sequence for entry in entries] == [1, 2, 3]
    assert entries[2].reason == "third: naïve “quotes”\nand a new line"
    assert entries[1].previous == entries[0].hash
    assert entries[0].state is State.TRAINED
    assert log.verify() == 3


def test_a_log_that_does_not_exist_is_empty_and_valid(tmp_path: Path) -> None:
    log = AuditLog(tmp_path / "audit.jsonl")
    assert log.read() == []
    assert log.verify() == 0


def test_a_changed_word_is_found_in_its_line(tmp_path: Path) -> None:
    log = log_of_three(tmp_path)
    log.path.write_text(log.path.read_text().replace("second", "SECOND"))
    with pytest.raises(AuditError, match="line 2: the chain is broken"):
        log.verify()


def test_a_removed_line_is_found_where_it_is_missing(tmp_path: Path) -> None:
    log = log_of_three(tmp_path)
    lines = log.path.read_text().splitlines(keepends=True)
    log.path.write_text(lines[0] + lines[2])
    with pytest.raises(AuditError, match="line 2"):
        log.verify()


def test_a_line_that_was_changed_together_with_its_hash_breaks_the_next(tmp_path: Path) -> None:
    log = log_of_three(tmp_path)
    other = AuditLog(tmp_path / "other.jsonl")
    other.append(audit_event("first"))
    other.append(audit_event("forged"))
    lines = log.path.read_text().splitlines(keepends=True)
    forged = json.loads(other.path.read_text().splitlines()[1])
    assert forged["previous"] != json.loads(lines[1])["previous"]
    log.path.write_text(lines[0] + other.path.read_text().splitlines(keepends=True)[1] + lines[2])
    with pytest.raises(AuditError, match="line 2"):
        log.verify()


def test_a_line_that_is_not_an_entry_is_named(tmp_path: Path) -> None:
    log = log_of_three(tmp_path)
    with log.path.open("a") as file:
        file.write("hello\n")
    with pytest.raises(AuditError, match="line 4"):
        log.verify()
    with pytest.raises(AuditError, match="line 4"):
        log.read()


@pytest.mark.parametrize("kept", [1, 40, 200])
def test_a_line_that_a_crash_left_unfinished_is_ignored_and_then_replaced(tmp_path: Path, kept: int) -> None:
    log = log_of_three(tmp_path)
    whole = log.path.read_bytes()
    log.path.write_bytes(whole + whole.splitlines()[1][:kept])
    assert len(log.read()) == log.verify() == 3
    log.append(audit_event("after the crash"))
    assert log.verify() == 4
    assert log.read()[-1].reason == "after the crash"


def append_many(path: Path, count: int) -> None:
    log = AuditLog(path)
    for number in range(count):
        log.append(audit_event(f"number {number}"))


def test_processes_that_append_at_once_share_one_unbroken_chain(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    context = get_context("fork")
    writers = [context.Process(target=append_many, args=(path, 25)) for _ in range(3)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(timeout=60)
        assert writer.exitcode == 0
    assert AuditLog(path).verify() == 75


def test_several_entries_are_appended_in_one_chain(tmp_path: Path) -> None:
    log = AuditLog(tmp_path / "audit.jsonl")
    with log.locked() as locked:
        entries = locked.append(audit_event("one"), audit_event("two"))
    assert [entry.sequence for entry in entries] == [1, 2]
    assert log.verify() == 2


def test_errors_of_the_audit_log_are_ratchet_errors() -> None:
    assert issubclass(AuditError, RatchetError)


def test_what_another_log_on_the_same_file_appended_is_read_and_callers_cannot_change_what_is_kept(
    tmp_path: Path,
) -> None:
    one, other = AuditLog(tmp_path / "audit.jsonl"), AuditLog(tmp_path / "audit.jsonl")
    assert one.read() == []
    for number in (1, 2):
        other.append(audit_event())
        found = one.read()
        assert len(found) == number
        found.clear()
        assert len(one.read()) == number
