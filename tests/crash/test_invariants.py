"""The judge judged: each rule is silent about a sound store and speaks up when it is broken."""

from pathlib import Path

import duckdb
import pytest

from streams.store.settings import StoreSettings
from streams.store.writer import Store
from streams.trust.holdout import Split
from tests.builders.episodes import HOLDOUT, KAFKA, TASKS, episode
from tests.builders.stored import Log
from tests.crash.invariants import ALWAYS, DRAINED, Rule, broken_in_file, lost
from tests.crash.ledger import Acknowledged, Ledger

_AGAIN = "SELECT * REPLACE (1000 + sequence AS sequence) FROM"
BREAKS = {
    "no event is stored twice": f"INSERT INTO events {_AGAIN} events LIMIT 1",
    "no step is stored twice": f"INSERT INTO transitions {_AGAIN} transitions WHERE origin = 'production' LIMIT 1",
    "no alternative is stored twice": f"INSERT INTO transitions {_AGAIN} transitions WHERE origin = 'branch' LIMIT 1",
    "no state has two branch results": f"INSERT INTO branches {_AGAIN} branches LIMIT 1",
    "no episode is trusted twice": f"INSERT INTO trusted {_AGAIN} trusted LIMIT 1",
    "no episode fails twice": f"INSERT INTO failed {_AGAIN} failed LIMIT 1",
    "no failed episode has two results": f"INSERT INTO recovery_attempts {_AGAIN} recovery_attempts LIMIT 1",
    "no recovery is stored twice": f"INSERT INTO recoveries {_AGAIN} recoveries LIMIT 1",
    "no sequence is given twice": "UPDATE trusted SET sequence = (SELECT min(sequence) FROM events)",
    "the log has no gap": "INSERT INTO gaps VALUES (1000, 'ratchet.events', 0, 1, 2)",
    "a stored step has its transition, and only a stored step": "DELETE FROM transitions WHERE step = 0",
    "a stored verdict has its outcome, and only a stored verdict": "DELETE FROM outcomes",
    "each offset below a partition's next is accounted for once": "UPDATE offsets SET next = next + 1",
    "each branch result below the offsets is accounted for once": "UPDATE offsets SET next = next + 1",
    "a trusted or failed training episode is asked for once, and only such an episode": "DELETE FROM outbox",
    "an executed alternative is a transition": "DELETE FROM transitions WHERE origin = 'branch'",
    "the outbox is published": "DELETE FROM offsets WHERE topic = 'outbox'",
    "each state of a trusted training episode has one result, all of one request": "DELETE FROM branches",
    "each failed training episode has one result, and only such an episode": "DELETE FROM recovery_attempts",
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """The file of a store that took in a trusted episode, which was branched, and a failed one, which was recovered."""
    path, task = tmp_path / "store.duckdb", TASKS[Split.TRAIN][0]
    store = Store.open(StoreSettings(path=path), HOLDOUT, KAFKA)
    log = Log(store)
    log.publish(*episode("episode", task))
    for step in range(2):
        log.branched("episode", task, step)
    log.publish(*episode("failed", task, "policy", success=False))
    log.recovered("failed", task, left_at=1)
    store.published(store.pending(2)[-1].sequence)
    store.close()
    return path


def test_a_sound_store_breaks_no_rule(path: Path) -> None:
    assert broken_in_file(path, (*ALWAYS, *DRAINED), KAFKA) == []


@pytest.mark.parametrize("rule", [*ALWAYS, *DRAINED], ids=lambda rule: rule.says)
def test_a_store_with_one_fault_breaks_the_rule_for_that_fault(rule: Rule, path: Path) -> None:
    with duckdb.connect(str(path)) as file:
        file.execute(BREAKS[rule.says])
    assert any(finding.startswith(rule.says) for finding in broken_in_file(path, (rule,), KAFKA))


def test_an_acknowledged_event_that_is_not_stored_counts_as_lost(path: Path) -> None:
    with duckdb.connect(str(path)) as file:
        stored = frozenset(str(row[0]) for row in file.execute("SELECT event_id FROM events").fetchall())

        def found(acknowledged: Acknowledged) -> list[str]:
            return lost(lambda sql: file.execute(sql).fetchall(), acknowledged)

        assert found(Acknowledged(events=stored)) == []
        assert found(Acknowledged(events=stored | {"gone"}, malformed=frozenset({(0, 7)}))) == ["gone", "malformed 0/7"]


def test_a_ledger_ignores_only_the_line_that_a_kill_left_unfinished(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger")
    ledger.write(["one", "two"], [(0, 7)], batch=0)
    with ledger.path.open("a") as file:
        file.write("event thr")
    whole = Acknowledged(batches=1, events=frozenset({"one", "two"}), malformed=frozenset({(0, 7)}))
    assert ledger.read() == whole
    ledger.write(["three"], [], batch=1)
    assert ledger.read() == Acknowledged(2, whole.events | {"three"}, whole.malformed)
