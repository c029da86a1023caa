"""The store's tables as Arrow schemas: the DDL, the inserts and the documentation of every column.

All are append-only but `offsets`. `sequence` is unique over all tables and grows, so that any state of the store can be
asked for *as of* a sequence.
"""

import pyarrow as pa

_TIME = pa.timestamp("us")  # UTC; DuckDB needs an extension for anything with a zone

# DuckDB's types of the columns, for DDL.
SQL_TYPES: dict[pa.DataType, str] = {
    pa.string(): "VARCHAR",
    pa.binary(): "BLOB",
    pa.bool_(): "BOOLEAN",
    pa.int32(): "INTEGER",
    pa.int64(): "BIGINT",
    pa.uint64(): "UBIGINT",
    pa.float64(): "DOUBLE",
    pa.list_(pa.float64()): "DOUBLE[]",
    _TIME: "TIMESTAMP",
}


def _schema(**columns: pa.DataType) -> pa.Schema:
    return pa.schema(list(columns.items()))


_SEQUENCE = {"sequence": pa.int64()}
_ORIGIN = {"topic": pa.string(), "partition": pa.int32(), "offset": pa.int64()}

TABLES: dict[str, pa.Schema] = {
    # Every event, once. What it says is in the table of its kind, under the same id.
    "events": _schema(
        **_SEQUENCE,
        event_id=pa.string(),
        kind=pa.string(),
        episode_id=pa.string(),
        **_ORIGIN,
        recorded_at=_TIME,
        agent=pa.string(),
    ),
    # Of the outcomes of one verifier on an episode, the latest by `recorded_at` counts; of equal ones, the last stored.
    "outcomes": _schema(
        **_SEQUENCE,
        event_id=pa.string(),
        episode_id=pa.string(),
        verifier=pa.string(),
        success=pa.bool_(),
        score=pa.float64(),
        evidence=pa.string(),
        recorded_at=_TIME,
    ),
    # Steps of three origins. `messages` is null in branch rows: they start from the production row of the same step.
    # `action` is the JSON of a message; `messages`, `observation` and `tools` are JSON lists, `tools` null where none
    # were offered, and in branch rows. `receipt` is that of the captured call that a step was. `log_probabilities` are
    # those of a practised action's tokens when they were sampled, in nats; null where they are not known. `advice` is
    # the JSON of what a practising policy was told beside `messages`; null where it was told nothing. `state` is the
    # reference to the state that the episode began in; null where it is the task's own.
    "transitions": _schema(
        **_SEQUENCE,
        transition_id=pa.string(),
        origin=pa.string(),
        episode_id=pa.string(),
        step=pa.int32(),
        environment=pa.string(),
        task_id=pa.string(),
        seed=pa.int64(),
        messages=pa.string(),
        action=pa.string(),
        observation=pa.string(),
        done=pa.bool_(),
        actor_kind=pa.string(),
        adapter=pa.string(),
        fidelity=pa.string(),
        score=pa.float64(),
        source=pa.string(),
        principal=pa.string(),
        tools=pa.string(),
        receipt=pa.string(),
        log_probabilities=pa.list_(pa.float64()),
        advice=pa.string(),
        state=pa.string(),
    ),
    # Practice episodes that came to their end, with their outcome. `reason` is why nothing may be learned from one; it
    # is null where it may. `advice` is the kind of advice that it was played with, null without any: such an episode
    # says nothing of what its adapter does alone. Their steps are of a lower sequence. No other table has outcomes of
    # practice.
    "practised": _schema(
        **_SEQUENCE,
        event_id=pa.string(),
        episode_id=pa.string(),
        environment=pa.string(),
        task_id=pa.string(),
        adapter=pa.string(),
        steps=pa.int32(),
        success=pa.bool_(),
        score=pa.float64(),
        reason=pa.string(),
        advice=pa.string(),
    ),
    # One row per state that was to be branched, whatever became of it.
    "branches": _schema(
        **_SEQUENCE,
        result_id=pa.string(),
        request_id=pa.string(),
        episode_id=pa.string(),
        step=pa.int32(),
        requested=pa.int32(),
        executed=pa.int32(),
        fidelity=pa.string(),
        reason=pa.string(),
        policy=pa.string(),
    ),
    # Actions without a usable answer, as the JSON of a message; `fate` is timeout, died or too_large.
    "fatalities": _schema(**_SEQUENCE, episode_id=pa.string(), step=pa.int32(), action=pa.string(), fate=pa.string()),
    # One row per failed episode that was to be recovered from, whatever became of it.
    "recovery_attempts": _schema(
        **_SEQUENCE,
        result_id=pa.string(),
        request_id=pa.string(),
        episode_id=pa.string(),
        attempts=pa.int32(),
        sandbox_steps=pa.int32(),
        recovered=pa.int32(),
        fidelity=pa.string(),
        reason=pa.string(),
        policy=pa.string(),
    ),
    # Verified successes that begin in a failed episode: its first `left_at` steps, and then `steps`, a JSON list.
    "recoveries": _schema(
        **_SEQUENCE,
        recovery_id=pa.string(),
        episode_id=pa.string(),
        left_at=pa.int32(),
        steps=pa.string(),
        score=pa.float64(),
        source=pa.string(),
        adapter=pa.string(),
        fidelity=pa.string(),
        principal=pa.string(),
    ),
    # The next four say what was decided on an episode: its newest row in any of them counts.
    # Episodes that may be learned from: their steps of a lower sequence than the row's. An episode that went on and was
    # judged again has another row. `split` is that of the episode's task, `likeness` tells
    # near-duplicates, `trusted_at` is the store's own clock.
    "trusted": _schema(
        **_SEQUENCE,
        episode_id=pa.string(),
        split=pa.string(),
        principal=pa.string(),
        likeness=pa.uint64(),
        trusted_at=_TIME,
    ),
    # Episodes of policies whose every outcome that counts is a failure, with their steps of a lower sequence.
    "failed": _schema(**_SEQUENCE, episode_id=pa.string(), split=pa.string(), principal=pa.string()),
    # Trusted and failed episodes from which nothing is learned any more, unless later outcomes are successes again.
    # The same episode has the same `withdrawal_id` in every store; marks for retraining name it.
    "untrusted": _schema(**_SEQUENCE, withdrawal_id=pa.string(), episode_id=pa.string(), reason=pa.string()),
    # Episodes with an outcome that are neither trusted nor failed, and why; `succeeded` where an outcome is a success.
    "undecided": _schema(**_SEQUENCE, episode_id=pa.string(), succeeded=pa.bool_(), reason=pa.string()),
    # Episodes that are never learned from, whatever their verdict.
    "flags": _schema(**_SEQUENCE, episode_id=pa.string(), reason=pa.string()),
    "retractions": _schema(**_SEQUENCE, event_id=pa.string(), principal=pa.string(), reason=pa.string()),
    # Records that are not events, and events that were not let in. Their bytes are on the dead-letter topic only.
    "dead_letters": _schema(**_SEQUENCE, **_ORIGIN, error=pa.string()),
    "quarantined": _schema(**_SEQUENCE, **_ORIGIN, principal=pa.string(), reason=pa.string()),
    # What was erased, and must not come back: a principal, an episode, or a record by its ids and place in the log,
    # under the sequence that it had.
    "erased": _schema(
        **_SEQUENCE,
        erasure_id=pa.string(),
        principal=pa.string(),
        episode_id=pa.string(),
        event_id=pa.string(),
        **_ORIGIN,
    ),
    # Values replaced by placeholders, by kind and batch.
    "redactions": _schema(**_SEQUENCE, kind=pa.string(), count=pa.int64()),
    # Records whose event was stored before, under another offset.
    "duplicates": _schema(**_SEQUENCE, **_ORIGIN, event_id=pa.string()),
    # Offsets that the log did not give: `expected` was next, `found` came.
    "gaps": _schema(**_SEQUENCE, topic=pa.string(), partition=pa.int32(), expected=pa.int64(), found=pa.int64()),
    # Messages decided on in a transaction and published after it.
    "outbox": _schema(**_SEQUENCE, topic=pa.string(), key=pa.binary(), value=pa.binary()),
    # The clusters that were read, one after the other.
    "logs": _schema(**_SEQUENCE, cluster_id=pa.string()),
    # What comes next: of each partition, (topic 'outbox') of the outbox by sequence and, where several processes write,
    # (topic 'sequence') of all rows.
    "offsets": _schema(topic=pa.string(), partition=pa.int32(), next=pa.int64()),
}
