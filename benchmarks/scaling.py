"""Events and states per second of one and of several record roles and branch workers, from a backlog.

`python -m benchmarks.scaling [--kind KIND …] [--workers N …] [--partitions N …] [--events N] [--states N] [--keep]
[--json]` starts them as processes over the embedded broker, record roles over a lake also with a PostgreSQL of their
own, which must be installed. A record role over a DuckDB file is always one. They store episodes of ten steps and an
outcome, all of which become trusted and are asked to be branched; branch workers branch TextWorldExpress without a
policy, one sandbox each. The backlog is on all partitions evenly before they start, and what they do is counted from
when all of them work.

The limits are those of `benchmarks.ingest` and `benchmarks.branching`: one bare consumer that inserts as many rows,
and the plain loop times the processors. `ratio` is the least of the points' rates by theirs. Beside each rate is the
processor time of every process, so that one sees what runs out. The report ends with a table in Markdown.
"""

import argparse
import asyncio
import json
import os
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from aiokafka.errors import KafkaError
from kafka import KafkaProducer

from benchmarks.branching import operations, plain, record, verified
from benchmarks.core_seconds import CoreSeconds
from benchmarks.ingest import bare
from benchmarks.scaling_points import BROKER, NAMES, OTHERS, POINTS, POSTGRES, Kind, Point, Points, markdown
from ratchet_client.ids import uuid7
from streams.branch_events import BranchRequest
from streams.branching.settings import BranchingSettings
from streams.environments.registry import load_environment
from streams.errors import StoreError
from streams.kafka.broker import EmbeddedBroker
from streams.kafka.settings import KafkaSettings
from streams.kafka.topics import create_topics, end_offsets
from streams.runtime.files import write_atomically
from streams.sandboxes.pool import SandboxPool
from streams.store.client import StoreClient
from streams.store.settings import Backend, LakeSettings, StoreSettings
from tests.builders.episodes import HOLDOUT, episode
from tests.builders.topics import with_own_topics
from tests.integration.branch_workers import workers_of
from tests.integration.record_roles import RecordRole
from tests.integration.recording import UNLIMITED, pairs
from tests.postgres import Postgres, running_postgres

BRANCHING = BranchingSettings(samples=0)
ENVIRONMENT = "textworld_express"
STEPS = 10
LEAST_COUNTED = 1 / 3
MOST_S = 900.0
_LOOK_S = 0.5
_SEND_TIMEOUT_S = 60
_NOT_YET = (httpx.HTTPError, StoreError, KafkaError, KeyError)
Backlog = Sequence[tuple[bytes, bytes]]


def say(text: str) -> None:
    """Tell how far it is."""
    print(text, file=sys.stderr, flush=True)


def episodes(events: int) -> list[tuple[bytes, bytes]]:
    """Key and value of so many events or a few more: whole episodes, of principals of their own."""
    found = list[tuple[bytes, bytes]]()
    while len(found) < events:
        name = f"episode-{len(found)}"
        found += [(key.encode(), value) for key, value in pairs(episode(name, steps=STEPS))]
    return found


def publish(kafka: KafkaSettings, topic: str, backlog: Backlog, in_a_row: int) -> None:
    """Publish all, so many in a row to each partition, and return when the broker has them."""
    producer = KafkaProducer(bootstrap_servers=kafka.bootstrap, linger_ms=20)
    sent = [
        producer.send(topic, key=key, value=value, partition=number // in_a_row % kafka.partitions)
        for number, (key, value) in enumerate(backlog)
    ]
    for each in sent:
        each.get(_SEND_TIMEOUT_S)
    producer.close()


async def until_done(
    done: Callable[[], Awaitable[int]], all_work: Callable[[], bool], total: int, processes: Mapping[str, int]
) -> tuple[int, CoreSeconds]:
    """How many of `total` were done, and what it took, from when all processes worked until the end.

    Raises `AssertionError` where that takes longer than `MOST_S`, or too little of it was left when all worked.
    """
    deadline, began, before, now = time.monotonic() + MOST_S, None, 0, 0
    while now < total:
        assert time.monotonic() < deadline, f"{now} of {total} were done within {MOST_S:.0f} s"
        with suppress(*_NOT_YET):  # a role that is busy may refuse to answer
            now = await done()
            if began is None and now and all_work():
                began, before = CoreSeconds.of(processes), now
        await asyncio.sleep(_LOOK_S)
    assert began is not None, "all was done before all processes worked: give more"
    assert total - before >= total * LEAST_COUNTED, f"{before} of {total} were done before all worked: give more"
    return total - before, CoreSeconds.of(processes).since(began)


async def record_point(kind: Kind, postgres: Postgres | None, workers: int, partitions: int, backlog: Backlog) -> Point:
    """Record roles that store the backlog, which then the bare consumer reads."""
    with ExitStack() as stack:
        broker = stack.enter_context(EmbeddedBroker())
        kafka = with_own_topics(KafkaSettings(bootstrap=broker.bootstrap, partitions=partitions))
        create_topics(kafka)
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        store = StoreSettings()
        if postgres is not None:
            lake = LakeSettings(catalog=postgres.database(), data=folder / "lake")
            store = StoreSettings(backend=Backend.DUCKLAKE, lake=lake)
        publish(kafka, kafka.events_topic, backlog, STEPS + 1)
        roles = [RecordRole(kafka, store, folder / "home", UNLIMITED, HOLDOUT) for _ in range(workers)]
        for role in roles:
            stack.callback(role.kill)
            role.start()
        processes = {f"role-{number}": role.process.pid for number, role in enumerate(roles)}
        before = list[tuple[int, float]]()
        async with StoreClient(roles[0].url) as client:

            async def stored() -> int:
                rows = await client.query(
                    f"SELECT sum(next)::BIGINT AS n FROM offsets WHERE topic = '{kafka.events_topic}'"
                )
                return int(rows["n"].to_pylist()[0] or 0)

            def all_work() -> bool:
                before[:] = [role.written() for role in roles]
                return all(batches for batches, _ in before)

            counted, used = await until_done(stored, all_work, len(backlog), _with_servers(processes, broker, postgres))
            after = [role.written() for role in roles]
        for role in roles:
            role.kill()
        limit = len(backlog) / await bare(kafka, folder, len(backlog), store.batch)
    return _point(kind, workers, partitions, counted, used).model_copy(
        update={
            "transactions": sum(new[0] - old[0] for new, old in zip(after, before, strict=True)),
            "write_s": round(sum(new[1] - old[1] for new, old in zip(after, before, strict=True)), 2),
            "bare_per_s": round(limit, 1),
        }
    )


async def branch_requests() -> tuple[list[BranchRequest], float]:
    """Recorded episodes of TextWorldExpress, and the states per second that the plain loop does on all processors."""
    async with SandboxPool(ENVIRONMENT) as pool:
        requests = await record(pool)
        results = await verified(requests, pool, BRANCHING)
    done = operations(load_environment(ENVIRONMENT)(), requests, results)
    seconds = min(plain(done) for _ in range(8))  # Java compiles meanwhile what it runs often
    return requests, len(results) / seconds * len(os.sched_getaffinity(0))


async def branch_point(
    workers: int, partitions: int, recorded: tuple[Sequence[BranchRequest], float], states: int
) -> Point:
    """Branch workers that work `states` states off; `recorded` is what `branch_requests` gave."""
    requests, limit = recorded
    backlog, total = list[tuple[bytes, bytes]](), 0
    while total < states:
        request = requests[len(backlog) % len(requests)]
        name = f"{len(backlog)}-{request.episode_id}"
        told = request.model_copy(update={"episode_id": name, "event_id": uuid7()})
        backlog.append((name.encode(), told.to_json()))
        total += len(request.steps)
    with ExitStack() as stack:
        broker = stack.enter_context(EmbeddedBroker())
        kafka = with_own_topics(KafkaSettings(bootstrap=broker.bootstrap, partitions=partitions))
        create_topics(kafka)
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        publish(kafka, kafka.branches_topic, backlog, 1)
        started = stack.enter_context(workers_of(kafka, BRANCHING, folder, workers))
        processes = {f"worker-{number}": worker.process.pid for number, worker in enumerate(started)}

        async def branched() -> int:
            ends = await asyncio.to_thread(end_offsets, kafka.bootstrap, kafka.transitions_topic)
            return sum(ends.values())

        counted, used = await until_done(
            branched,
            lambda: all(len(worker.episodes()) > BRANCHING.episodes for worker in started),
            total,
            _with_servers(processes, broker, None),
        )
    return _point(Kind.BRANCH, workers, partitions, counted, used).model_copy(update={"bare_per_s": round(limit, 1)})


def _with_servers(processes: Mapping[str, int], broker: EmbeddedBroker, postgres: Postgres | None) -> dict[str, int]:
    assert broker.pid is not None
    servers = {BROKER: broker.pid}
    if postgres is not None:
        servers[POSTGRES] = postgres.pid
    return {**processes, **servers}


def _point(kind: Kind, workers: int, partitions: int, counted: int, used: CoreSeconds) -> Point:
    core_s = {name: round(seconds, 2) for name, seconds in {**used.groups, OTHERS: used.others}.items()}
    return Point(
        kind=kind,
        workers=workers,
        partitions=partitions,
        counted=counted,
        seconds=round(used.at, 2),
        cores=psutil.cpu_count() or 1,
        core_s=core_s,
    )


def measure(options: argparse.Namespace) -> Iterator[Point]:
    """The chosen points, one after the other; what they share is made once. One that fails is told, and left out."""
    grid = [(many, over) for many in options.workers for over in options.partitions if many <= over]
    with ExitStack() as stack:
        measuring = list[Callable[[], Coroutine[Any, Any, Point]]]()
        if {Kind.FILE, Kind.LAKE}.intersection(options.kind):
            say(f"making {options.events} events")
            backlog = episodes(options.events)
        if Kind.FILE in options.kind:
            measuring += [partial(record_point, Kind.FILE, None, 1, over, backlog) for over in options.partitions]
        if Kind.LAKE in options.kind:
            try:
                postgres = stack.enter_context(running_postgres())
            except pytest.skip.Exception as reason:
                say(f"nothing is measured over a lake: {reason}")
            else:
                measuring += [partial(record_point, Kind.LAKE, postgres, *each, backlog) for each in grid]
        if Kind.BRANCH in options.kind:
            say("recording episodes to branch, and running the plain loop over them")
            recorded = asyncio.run(branch_requests())
            measuring += [partial(branch_point, *each, recorded, options.states) for each in grid]
        for number, each in enumerate(measuring):
            try:
                point = asyncio.run(each())
            except AssertionError as error:
                say(f"{number + 1} of {len(measuring)}: not measured: {error}")
            else:
                many = f"{NAMES[point.kind]}, {point.workers} over {point.partitions} partitions"
                took = f"{point.per_s:,.0f}/s over {point.seconds:.0f} s"
                say(f"{number + 1} of {len(measuring)}: {many}: {took}, limit {point.bare_per_s:,.0f}")
                yield point


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kind", nargs="+", type=Kind, choices=list(Kind), default=list(Kind))
    parser.add_argument("--workers", nargs="+", type=int, default=[1, 2, 4], help="record roles, and branch workers")
    parser.add_argument("--partitions", nargs="+", type=int, default=[4, 8, 16], help="of each topic")
    parser.add_argument("--events", type=int, default=120_000, help="the backlog of record roles")
    parser.add_argument("--states", type=int, default=15_000, help="the backlog of branch workers")
    parser.add_argument("--keep", action="store_true", help=f"write them into {POINTS.name}, for the model")
    parser.add_argument("--json", action="store_true", help="the last line is one JSON object")
    options = parser.parse_args()
    earlier = Points.model_validate_json(POINTS.read_bytes()) if options.keep and POINTS.exists() else None
    load = round(os.getloadavg()[0], 2)
    points = tuple(measure(options))
    if not points:
        parser.error("nothing was measured: choose another --kind, --workers or --partitions")
    seen = Points.of(points, date.today().isoformat(), load)
    if options.keep:
        kept = seen if earlier is None else seen.over(earlier)
        write_atomically(POINTS, kept.model_dump_json(indent=2).encode() + b"\n", mode=0o644)
    print(markdown(seen.points))
    if options.json:
        print(json.dumps(seen.model_dump(mode="json")))


if __name__ == "__main__":
    main()
