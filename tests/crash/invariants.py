"""What must hold of the store: each rule is a SELECT that finds the rows that break it.

They are asked of the live writer, of a copy of the file as a kill left it, and of the file or the lake in the end.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import duckdb

from streams.kafka.settings import KafkaSettings
from streams.store.ducklake import connect
from streams.store.settings import LakeSettings
from streams.store.tables import TABLES
from tests.crash.ledger import Acknowledged

Ask = Callable[[str], Sequence[Sequence[object]]]

_ORIGINS = ("events", "duplicates", "dead_letters", "quarantined")
_SHOWN = 3


@dataclass(frozen=True, slots=True)
class Rule:
    """`sql` selects what breaks it; `{events}`, `{transitions}` and `{branches}` are the topics' names."""

    says: str
    sql: str


def _repeated(table: str, columns: str, where: str = "true") -> str:
    return f"SELECT {columns}, count(*) FROM {table} WHERE {where} GROUP BY {columns} HAVING count(*) > 1"


_NUMBERED = " UNION ALL ".join(f"SELECT sequence FROM {name}" for name in TABLES if "sequence" in TABLES[name].names)
_ACCOUNTED = " UNION ALL ".join(f'SELECT topic, partition, "offset" AS position FROM {name}' for name in _ORIGINS)

ALWAYS = (
    Rule("no event is stored twice", _repeated("events", "event_id")),
    Rule("no step is stored twice", _repeated("transitions", "transition_id", "origin = 'production'")),
    Rule("no alternative is stored twice", _repeated("transitions", "transition_id", "origin = 'branch'")),
    Rule("no state has two branch results", _repeated("branches", "request_id, step")),
    Rule("no episode is trusted twice", _repeated("trusted", "episode_id")),
    Rule("no episode fails twice", _repeated("failed", "episode_id")),
    Rule("no failed episode has two results", _repeated("recovery_attempts", "request_id")),
    Rule("no recovery is stored twice", _repeated("recoveries", "recovery_id")),
    Rule("no sequence is given twice", _repeated(f"({_NUMBERED})", "sequence")),
    Rule("the log has no gap", "SELECT topic, partition, expected, found FROM gaps"),
    Rule(
        "a stored step has its transition, and only a stored step",
        "SELECT event_id, transition_id FROM (FROM events WHERE kind = 'step') "
        "FULL JOIN (FROM transitions WHERE origin = 'production') ON event_id = transition_id "
        "WHERE event_id IS NULL OR transition_id IS NULL",
    ),
    Rule(
        "a stored verdict has its outcome, and only a stored verdict",
        "SELECT e.event_id, o.event_id FROM (FROM events WHERE kind = 'outcome') e "
        "FULL JOIN outcomes o ON e.event_id = o.event_id WHERE e.event_id IS NULL OR o.event_id IS NULL",
    ),
    Rule(
        "each offset below a partition's next is accounted for once",
        f"SELECT topic, partition, next, n, different, highest FROM (FROM offsets WHERE topic = '{{events}}') "
        "FULL JOIN (SELECT topic, partition, count(*) AS n, count(DISTINCT position) AS different, "
        "max(position) AS highest "
        f"FROM ({_ACCOUNTED}) WHERE topic = '{{events}}' GROUP BY ALL) USING (topic, partition) "
        "WHERE (n, different, highest + 1) IS DISTINCT FROM (next, next, next) AND next IS DISTINCT FROM 0",
    ),
    Rule(
        "each branch result below the offsets is accounted for once",
        "SELECT read, kept FROM (SELECT coalesce(sum(next), 0) AS read FROM offsets WHERE topic = '{transitions}'), "
        "(SELECT (SELECT count(*) FROM branches) + (SELECT count(*) FROM recovery_attempts) "
        f"+ (SELECT count(*) FROM ({_ACCOUNTED}) "
        "WHERE topic = '{transitions}') AS kept) WHERE read <> kept",
    ),
    Rule(
        "a trusted or failed training episode is asked for once, and only such an episode",
        "SELECT t.episode_id, o.episode_id, asked FROM (SELECT episode_id FROM trusted WHERE split = 'train' "
        "UNION ALL SELECT episode_id FROM failed WHERE split = 'train') t "
        "FULL JOIN (SELECT decode(key) AS episode_id, count(*) AS asked FROM outbox WHERE topic = '{branches}' "
        "GROUP BY ALL) o ON t.episode_id = o.episode_id WHERE t.episode_id IS NULL OR asked IS DISTINCT FROM 1",
    ),
    Rule(
        "an executed alternative is a transition",
        "SELECT executed, stored FROM (SELECT coalesce(sum(executed), 0) AS executed FROM branches), "
        "(SELECT count(*) AS stored FROM transitions WHERE origin = 'branch') WHERE executed <> stored",
    ),
)

DRAINED = (
    Rule(
        "the outbox is published",
        "SELECT sequence, topic FROM outbox "
        "WHERE sequence >= coalesce((SELECT next FROM offsets WHERE topic = 'outbox'), 0)",
    ),
    Rule(
        "each state of a trusted training episode has one result, all of one request",
        "SELECT episode_id, steps, results, different, requests FROM "
        "(SELECT episode_id, count(*) AS steps FROM transitions SEMI JOIN (FROM trusted WHERE split = 'train') "
        "USING (episode_id) WHERE origin = 'production' GROUP BY ALL) LEFT JOIN "
        "(SELECT episode_id, count(*) AS results, count(DISTINCT step) AS different, "
        "count(DISTINCT request_id) AS requests FROM branches GROUP BY ALL) USING (episode_id) "
        "WHERE (results, different, requests) IS DISTINCT FROM (steps, steps, 1)",
    ),
    Rule(
        "each failed training episode has one result, and only such an episode",
        "SELECT f.episode_id, r.episode_id FROM (FROM failed WHERE split = 'train') f "
        "FULL JOIN recovery_attempts r ON f.episode_id = r.episode_id "
        "WHERE f.episode_id IS NULL OR r.episode_id IS NULL",
    ),
)


def broken(ask: Ask, rules: Sequence[Rule], kafka: KafkaSettings) -> list[str]:
    """What the rules find, in words; nothing when all is well."""
    topics = {"events": kafka.events_topic, "transitions": kafka.transitions_topic, "branches": kafka.branches_topic}
    findings = []
    for rule in rules:
        rows = ask(rule.sql.format(**topics))
        if rows:
            findings.append(f"{rule.says}: {len(rows)} times not, first {list(rows[:_SHOWN])}")
    return findings


def lost(ask: Ask, acknowledged: Acknowledged) -> list[str]:
    """Acknowledged events that are not stored, and malformed records that are not noted as dead-letter records."""
    stored = {row[0] for row in ask("SELECT event_id FROM events")}
    noted = {(row[0], row[1]) for row in ask('SELECT partition, "offset" FROM dead_letters')}
    return [
        *sorted(acknowledged.events - stored),
        *(f"malformed {partition}/{offset}" for partition, offset in sorted(acknowledged.malformed - noted)),
    ]


def broken_in_lake(lake: LakeSettings, rules: Sequence[Rule], kafka: KafkaSettings) -> list[str]:
    """Ask of the lake itself."""
    with connect(lake) as connection:
        return broken(lambda sql: connection.execute(sql).fetchall(), rules, kafka)


def broken_in_file(path: Path, rules: Sequence[Rule], kafka: KafkaSettings) -> list[str]:
    """Open the DuckDB file, which replays its write-ahead log; ask, checkpoint, and ask again what is on disk then.

    Raises `duckdb.Error` when the file does not open or does not take a checkpoint.
    """
    return [*_asked_and_checkpointed(path, rules, kafka), *_asked_and_checkpointed(path, rules, kafka)]


def _asked_and_checkpointed(path: Path, rules: Sequence[Rule], kafka: KafkaSettings) -> list[str]:
    with duckdb.connect(str(path)) as connection:
        findings = broken(lambda sql: connection.execute(sql).fetchall(), rules, kafka)
        connection.execute("CHECKPOINT")
    return findings
