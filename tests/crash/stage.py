"""Writers, branch workers and loads on a real cluster, and the questions that say whether they are well."""

import asyncio
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import reduce
from itertools import islice
from pathlib import Path

import duckdb
import httpx
import pyarrow as pa
from kafka import KafkaConsumer

from ratchet_client.errors import BrokerError
from ratchet_client.events import Task
from streams.branch_events import RecordedStep
from streams.branching.settings import BranchingSettings, RecoverySettings
from streams.environments.harness import ChatHarness
from streams.intake.admission import AdmissionSettings
from streams.kafka.settings import KafkaSettings
from streams.kafka.topics import create_topics, end_offsets
from streams.runtime.processes import free_port
from streams.sandboxes.pool import SandboxPool
from streams.store.ducklake import connect
from streams.store.settings import Backend, LakeSettings, StoreSettings
from streams.trust.holdout import HoldoutSettings, Split
from streams.trust.settings import QuotaSettings
from tests.crash.invariants import ALWAYS, DRAINED, broken, broken_in_file, broken_in_lake, lost
from tests.crash.ledger import Acknowledged, Ledger
from tests.crash.load import RECORDINGS, LoadSettings, Recording
from tests.crash.victims import Victim
from tests.roles import RoleSettings
from tests.waiting import POLL_S, until

HOLDOUT = HoldoutSettings()
AGENTS, LIBRARY = LOADS = ("agents", "library")
ENVIRONMENT = "textworld_express"
# The load says the same again and again, which must not be mistaken for a flood here.
UNLIMITED = AdmissionSettings(quota=QuotaSettings(per_principal=10**9, near_duplicates=10**9))
CONVERGES_WITHIN_S = 180.0
# Each question, and each transaction, takes a good part of a second of a processor.
_ASKED_OF_A_LAKE_EVERY_S = 0.5


class NotConvergedError(AssertionError):
    """What was killed did not come back to where it must be. The text ends with the last output of every process."""


def played(training: int = 6) -> tuple[Recording, ...]:
    """Episodes that solve so many tasks of the train split, and then one that is held out, in the real sandbox."""
    return asyncio.run(_played(training))


async def _played(training: int) -> tuple[Recording, ...]:
    tasks = [Task(environment=ENVIRONMENT, task_id=f"twc/train/{seed}", seed=seed) for seed in range(1, 100)]
    chosen = [
        *islice((task for task in tasks if HOLDOUT.split(task.task_id) is Split.TRAIN), training),
        next(task for task in tasks if HOLDOUT.split(task.task_id) is Split.SELECTION),
    ]
    recordings = []
    async with SandboxPool(ENVIRONMENT) as pool, pool.session() as session:
        for task in chosen:
            actions = await session.demonstration(task)
            first, *answers = await session.replay(task, actions)
            steps = (
                RecordedStep(action=act, observation=seen.messages) for act, seen in zip(actions, answers, strict=True)
            )
            recordings.append(Recording(task=task, opening=ChatHarness().opening(first.messages), steps=tuple(steps)))
    return tuple(recordings)


@dataclass(slots=True)
class Stage:
    """Everything that runs, and what was acknowledged. Make it with `on_stage`."""

    kafka: KafkaSettings
    store: StoreSettings
    stop: Path
    recorder: Victim
    other_recorders: tuple[Victim, ...]
    branchers: tuple[Victim, ...]
    loads: dict[Victim, Ledger]
    _seen: set[str] = field(default_factory=set)
    _seen_until: int = 0

    @property
    def recorders(self) -> tuple[Victim, ...]:
        """The writers. Questions go to the first one."""
        return (self.recorder, *self.other_recorders)

    @property
    def victims(self) -> tuple[Victim, ...]:
        return (*self.recorders, *self.branchers, *self.loads)

    def opened(self) -> duckdb.DuckDBPyConnection:
        """The store itself. No process may have its file open."""
        return connect(self.store.lake) if self.store.is_lake else duckdb.connect(str(self.store.path))

    def acknowledged(self) -> Acknowledged:
        """What all loads were told by now that it is kept."""
        return reduce(Acknowledged.join, (ledger.read() for ledger in self.loads.values()))

    def ask(self, sql: str) -> list[tuple[object, ...]]:
        """The rows of a SELECT, from the writer. Raises `httpx.HTTPError` while it does not answer."""
        response = httpx.post(
            f"http://127.0.0.1:{self.store.port}/query", json={"sql": sql}, timeout=CONVERGES_WITHIN_S
        ).raise_for_status()
        return list(zip(*pa.ipc.open_stream(response.content).read_all().to_pydict().values(), strict=True))

    def wait_until(self, what: str, holds: Callable[[], bool], within_s: float = CONVERGES_WITHIN_S) -> None:
        """Poll until it holds, reviving what dies. A writer or a cluster that is starting does not answer yet.

        Raises `NotConvergedError`.
        """

        def holds_when_all_are_revived() -> bool:
            for victim in self.victims:
                victim.revive()
            return holds()

        try:
            until(
                holds_when_all_are_revived,
                what,
                within_s=within_s,
                every_s=_ASKED_OF_A_LAKE_EVERY_S if self.store.is_lake else POLL_S,
                errors=(httpx.HTTPError, BrokerError),
            )
        except AssertionError as error:
            words = (f"--- {victim.name} ({victim.status}):\n{victim.last_words()}" for victim in self.victims)
            raise NotConvergedError("\n".join((str(error), *words))) from None

    def stores(self, events: frozenset[str]) -> Callable[[], bool]:
        """A condition: all of `events` were stored. It asks only for what was stored since any asked last."""
        missing = events - self._seen

        def holds() -> bool:
            nonlocal missing
            rows = self.ask(f"SELECT event_id, sequence FROM events WHERE sequence > {self._seen_until}")
            self._seen_until = max((int(str(row[1])) for row in rows), default=self._seen_until)
            self._seen.update(str(row[0]) for row in rows)
            missing -= self._seen
            return not missing

        return holds

    def vanished(self) -> list[str]:
        """What is wrong where events that were seen in the store are not there any more."""
        ((stored,),) = self.ask(f"SELECT count(*) FROM events WHERE sequence <= {self._seen_until}")
        seen = len(self._seen)
        return [] if stored == seen else [f"{seen} events were seen up to {self._seen_until}, and {stored} are there"]

    def drained(self) -> bool:
        """Whether the loads are done, all they published is stored, and all that follows from it too."""
        return (
            all(load.status == 0 for load in self.loads)
            and self.at_the_end(self.kafka.events_topic)
            and not broken(self.ask, DRAINED, self.kafka)
            and self.at_the_end(self.kafka.transitions_topic)
        )

    def at_the_end(self, topic: str) -> bool:
        """Whether the stored offsets of the topic are its end."""
        read = {row[0]: row[1] for row in self.ask(f"SELECT partition, next FROM offsets WHERE topic = '{topic}'")}
        return all(read.get(partition, 0) == end for partition, end in end_offsets(self.kafka.bootstrap, topic).items())

    def findings(self) -> list[str]:
        """What the stored rows, the file and the topics break once all is drained. Ends the writers."""
        found = [
            *broken(self.ask, (*ALWAYS, *DRAINED), self.kafka),
            *(f"lost: {what}" for what in lost(self.ask, self.acknowledged())),
            *self._unpublished(),
        ]
        for writer in self.recorders:
            if writer.end(signal.SIGTERM) != 0:
                found.append(f"the writer did not end well: {writer.last_words()}")
        rules = (*ALWAYS, *DRAINED)
        if self.store.is_lake:
            return [*found, *broken_in_lake(self.store.lake, rules, self.kafka)]
        return [*found, *broken_in_file(self.store.path, rules, self.kafka)]

    def _unpublished(self) -> Iterator[str]:
        """What the tables say was published, and the topics do not have. Either may be there twice."""
        letters = {
            (headers[b"ratchet-topic"], headers[b"ratchet-partition"], headers[b"ratchet-offset"])
            for _, headers in records(self.kafka, self.kafka.dead_letters_topic)
        }
        for row in self.ask('SELECT topic, partition, "offset" FROM dead_letters'):
            if tuple(str(cell).encode() for cell in row) not in letters:
                yield f"a dead-letter record is noted and not published: {row}"
        asked = {key for key, _ in records(self.kafka, self.kafka.branches_topic)}
        judged = "SELECT episode_id, split FROM trusted UNION ALL SELECT episode_id, split FROM failed"
        for (episode,) in self.ask(f"SELECT episode_id FROM ({judged}) WHERE split = 'train'"):
            if str(episode).encode() not in asked:
                yield f"a branch request is noted and not published: {episode}"


def records(kafka: KafkaSettings, topic: str) -> Iterator[tuple[bytes, dict[bytes, bytes]]]:
    """Key and headers of every record of the topic."""
    consumer = KafkaConsumer(
        topic, bootstrap_servers=kafka.bootstrap, auto_offset_reset="earliest", consumer_timeout_ms=30_000
    )
    for _ in range(sum(end_offsets(kafka.bootstrap, topic).values())):
        record = next(consumer)
        yield record.key or b"", {name.encode(): value for name, value in record.headers}
    consumer.close()


@contextmanager
def on_stage(
    kafka: KafkaSettings,
    folder: Path,
    recordings: Sequence[Recording],
    *,
    loads: Sequence[str] = LOADS,
    workers: int = 1,
    batches: int | None = None,
    pause_s: float = 0.0,
    lake: LakeSettings | None = None,
) -> Iterator[Stage]:
    """Topics, and processes that are not started yet. All of them are killed in the end.

    With a `lake` there are two writers.
    """
    create_topics(kafka)
    recorded = folder / "recordings.json"
    recorded.write_bytes(RECORDINGS.dump_json(tuple(recordings)))
    stop = folder / "stop"
    store = StoreSettings(
        backend=Backend.DUCKDB if lake is None else Backend.DUCKLAKE,
        path=folder / "store.duckdb",
        lake=lake or LakeSettings(),
        port=free_port(),
        batch=200,
        batch_s=0.1 if lake is None else 1.0,
    )
    # There is no policy, so failed episodes are resumed by one listed action.
    branching = BranchingSettings(samples=0, alternatives=2, recovery=RecoverySettings(attempts=1, steps=1))

    def roles(port: int) -> str:
        own = store.model_copy(update={"port": port})
        return RoleSettings(
            kafka=kafka, store=own, holdout=HOLDOUT, admission=UNLIMITED, branching=branching
        ).model_dump_json()

    def recorder(name: str, port: int) -> Victim:
        return Victim(name, "tests.roles", ("record", roles(port)), folder / f"{name}.log")

    def load(name: str) -> tuple[Victim, Ledger]:
        ledger = Ledger(folder / f"{name}.ledger")
        settings = LoadSettings(
            name=name,
            bootstrap=kafka.bootstrap,
            topic=kafka.events_topic,
            recordings=recorded,
            ledger=ledger.path,
            stop=stop,
            spool=folder / "spool" if name == LIBRARY else None,
            batches=batches,
            pause_s=pause_s,
        )
        return Victim(name, "tests.crash.load", (settings.model_dump_json(),), folder / f"{name}.log"), ledger

    stage = Stage(
        kafka=kafka,
        store=store,
        stop=stop,
        recorder=recorder("recorder", store.port),
        other_recorders=() if lake is None else (recorder("recorder-1", free_port()),),
        branchers=tuple(
            Victim(f"brancher-{n}", "tests.roles", ("branch", roles(store.port)), folder / f"brancher-{n}.log")
            for n in range(workers)
        ),
        loads=dict(map(load, loads)),
    )
    try:
        yield stage
    finally:
        for victim in stage.victims:
            victim.end(signal.SIGKILL)
