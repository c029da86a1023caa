"""Speed of events from their topic into the store, against the least that could do it.

`python -m benchmarks.ingest [--events N] [--tools] [--rounds R] [--json]` produces N step events on an embedded broker
(or on `--bootstrap`) and reads them with the record role's own processor, redaction off and on, and with a bare
aiokafka consumer that inserts as many Arrow rows without decoding, checking or acknowledging anything. `ratio` is the
first rate by the last. With `--tools` the steps are those of an agent that calls tools.
"""

import argparse
import asyncio
import json
import resource
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import duckdb
import pyarrow as pa
from aiokafka import AIOKafkaConsumer, TopicPartition
from kafka import KafkaProducer

from ratchet_client.events import Actor, StepEvent, Task
from ratchet_client.ids import uuid7
from ratchet_client.messages import Messages, Tools, assistant, call, tool_result, user
from streams.intake.admission import Admission, AdmissionSettings
from streams.intake.pipeline import Intake
from streams.intake.processor import build_processor
from streams.intake.role import collect_rarely
from streams.kafka.broker import EmbeddedBroker
from streams.kafka.settings import KafkaSettings
from streams.kafka.topics import create_topics, end_offsets
from streams.kafka.worker import run
from streams.redaction.redactor import Redactor
from streams.redaction.settings import RedactionSettings
from streams.runtime.arenas import share_arenas
from streams.store.settings import StoreSettings
from streams.store.writer import Store
from streams.trust.holdout import HoldoutSettings

STEPS = 10
_IN_FLIGHT = 10_000
_SEND_TIMEOUT_S = 60


TOOLS: Tools = tuple(
    {
        "type": "function",
        "function": {
            "name": name,
            "description": f"{name} an object of the kitchen. " * 3,
            "parameters": {"type": "object", "properties": {"object": {"type": "string", "description": "Its name."}}},
        },
    }
    for name in ("take", "open", "close", "put")
)


def text(step: int) -> dict[str, Any]:
    """A step of a text game."""
    return {
        "messages": (user("You are in a kitchen. " * 20),),
        "action": assistant("open the wardrobe"),
        "observation": (user("You open the wardrobe. [score 0.50]"),),
    }


def tool_calls(step: int) -> dict[str, Any]:
    """A step of an agent with four tools, which calls one of them: its state has the calls and results of before."""
    state: Messages = (user("You are in a kitchen. " * 20),)
    for number in range(step + 1):
        action = assistant(None, call("open", json.dumps({"object": f"wardrobe {number}"}), f"call_{number}"))
        observation = (tool_result(json.dumps({"opened": True, "score": 0.5}), f"call_{number}"),)
        before, state = state, (*state, action, *observation)
    return {"messages": before, "action": action, "observation": observation, "tools": TOOLS}


def produce(kafka: KafkaSettings, events: int, step_of: Callable[[int], dict[str, Any]]) -> float:
    """Publish `events` steps of about 1 kB, with tool calls 1 to 4 kB; returns the seconds it took."""
    began = time.perf_counter()
    producer = KafkaProducer(bootstrap_servers=kafka.bootstrap, linger_ms=20)
    sent = []
    for number in range(events):
        name = f"episode-{number // STEPS}"
        event = StepEvent(
            episode_id=name,
            step=number % STEPS,
            agent="assistant",
            principal="tenant/user",
            task=Task(environment="textworld_express", task_id=f"twc/train/{number // STEPS}"),
            actor=Actor(kind="expert"),
            **step_of(number % STEPS),
        )
        sent.append(producer.send(kafka.events_topic, key=name.encode(), value=event.to_json()))
        if len(sent) == _IN_FLIGHT or number + 1 == events:
            for each in sent:
                each.get(_SEND_TIMEOUT_S)
            sent.clear()
    producer.close()
    return time.perf_counter() - began


async def through_the_record_role(kafka: KafkaSettings, path: Path, events: int, redaction: RedactionSettings) -> float:
    """Seconds from the first committed row to the last one; joining the group is not counted."""
    settings = StoreSettings(path=path)
    store = Store.open(settings, HoldoutSettings(), kafka)
    intake = Intake(Admission(AdmissionSettings()), Redactor(redaction, b"benchmark"))
    stop = asyncio.Event()
    role = asyncio.create_task(run(build_processor(store, intake, kafka, settings), stop))
    began = None
    before = 0
    while (read := sum(store.positions().values())) < events:
        if role.done():
            role.result()
        if read and began is None:
            began, before = time.perf_counter(), read
        await asyncio.sleep(0.002)
    assert began is not None
    seconds = (time.perf_counter() - began) * events / (events - before)
    stop.set()
    await role
    store.close()
    return seconds


async def bare(kafka: KafkaSettings, folder: Path, events: int, batch: int) -> float:
    """The same records by aiokafka alone, each batch inserted as one Arrow table."""
    database = duckdb.connect(str(folder / "bare.duckdb"), config={"threads": "1"})
    schema = pa.schema([("partition", pa.int32()), ("offset", pa.int64()), ("payload", pa.binary())])
    database.register("batch", schema.empty_table())
    database.execute("CREATE TABLE events AS FROM batch")
    consumer = AIOKafkaConsumer(bootstrap_servers=kafka.bootstrap, enable_auto_commit=False)
    await consumer.start()
    partitions = [TopicPartition(kafka.events_topic, number) for number in range(kafka.partitions)]
    consumer.assign(partitions)
    await consumer.seek_to_beginning(*partitions)
    read = 0
    began = time.perf_counter()
    while read < events:
        found = await consumer.getmany(timeout_ms=500, max_records=batch)
        records = [record for group in found.values() for record in group]
        if not records:
            continue
        columns = [
            [record.partition for record in records],
            [record.offset for record in records],
            [record.value for record in records],
        ]
        database.register("batch", pa.table(columns, schema=schema))
        database.execute("INSERT INTO events SELECT * FROM batch")
        read += len(records)
    seconds = time.perf_counter() - began
    await consumer.stop()
    database.close()
    return seconds


@contextmanager
def cluster(bootstrap: str) -> Iterator[str]:
    if bootstrap:
        yield bootstrap
        return
    with EmbeddedBroker() as broker:
        yield broker.bootstrap


def measure(kafka: KafkaSettings, folder: Path, events: int, rounds: int) -> tuple[dict[str, list[float]], int]:
    """Seconds of each contestant in each round, and the record role's peak of memory in MiB.

    They take turns, so that what else the machine does hits all.
    """
    peak = 0
    seconds: dict[str, list[float]] = {"recorded": [], "redacted": [], "bare": []}
    for number in range(rounds):
        fresh = folder / str(number)
        fresh.mkdir()
        for name, redaction in (("recorded", RedactionSettings(enabled=False)), ("redacted", RedactionSettings())):
            group = kafka.model_copy(update={"group_prefix": uuid7()})
            path = fresh / f"{name}.duckdb"
            seconds[name].append(asyncio.run(through_the_record_role(group, path, events, redaction)))
        # Before the bare consumer, whose database may take what it likes, has run.
        peak = peak or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
        seconds["bare"].append(asyncio.run(bare(kafka, fresh, events, StoreSettings().batch)))
        shutil.rmtree(fresh)
    return seconds, peak


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=3, help="how often each reads all of them; medians are reported")
    parser.add_argument("--tools", action="store_true", help="steps of an agent that calls tools")
    parser.add_argument("--bootstrap", default="", help="a cluster to use instead of the embedded broker")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    share_arenas()
    collect_rarely()
    with cluster(options.bootstrap) as bootstrap, tempfile.TemporaryDirectory() as folder:
        kafka = KafkaSettings(bootstrap=bootstrap, events_topic=f"{uuid7()}.events")
        create_topics(kafka)
        produced_s = produce(kafka, options.events, tool_calls if options.tools else text)
        assert sum(end_offsets(bootstrap, kafka.events_topic).values()) == options.events
        seconds, peak = measure(kafka, Path(folder), options.events, options.rounds)
    ratios = {
        name: [limit / ours for ours, limit in zip(seconds[name], seconds["bare"], strict=True)]
        for name in ("recorded", "redacted")
    }
    report = {
        "events": options.events,
        "produced_per_s": round(options.events / produced_s),
        **{f"{name}_per_s": round(options.events / median(times)) for name, times in seconds.items()},
        "peak_resident_mib": peak,
        "ratios": [round(ratio, 3) for ratio in ratios["recorded"]],
        "ratio_redacting": round(median(ratios["redacted"]), 3),
        "ratio": round(median(ratios["recorded"]), 3),
    }
    if options.json:
        print(json.dumps(report))
    else:
        for field, value in report.items():
            print(f"{field:>18} {value}")


if __name__ == "__main__":
    main()
