"""Cost of storing an event as the store grows, and the memory that it takes.

`python -m benchmarks.growth [--events N] [--json]` appends N events (episodes of nine steps and a verdict) to a new
store, in batches as the record role does, without a log before it. `ratio` is the processor time of an event in the
last tenth by that in the first: 1 means that the size of the store does not matter.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

import psutil
from rich.progress import track

from ratchet_client.events import Actor, Event, Message, OutcomeEvent, StepEvent, Task
from ratchet_client.ids import uuid7
from streams.intake.role import collect_rarely
from streams.kafka.records import Received
from streams.kafka.settings import KafkaSettings
from streams.runtime.arenas import share_arenas
from streams.store.decoded import Decoded
from streams.store.settings import StoreSettings
from streams.store.writer import Store
from streams.trust.holdout import HoldoutSettings

STEPS = 9
BATCH = 5000
MILLION = 10**6


def episode(number: int) -> list[Event]:
    """Nine steps that end in a verdict of failure."""
    name = uuid7()
    steps: list[Event] = [
        StepEvent(
            episode_id=name,
            step=step,
            agent="assistant",
            principal=f"tenant/{number % 100}",
            task=Task(environment="tools", task_id=f"task/{number}"),
            messages=(Message(role="user", content=f"Ticket {number}: what next?"),),
            action=Message(role="assistant", content=f"look at {step}"),
            observation=f"Nothing at {step}.",
            done=step == STEPS - 1,
            actor=Actor(kind="policy", adapter="base"),
        )
        for step in range(STEPS)
    ]
    return [*steps, OutcomeEvent(episode_id=name, verifier="desk", success=False, score=0.0)]


def grow(store: Store, topic: str, events: int, quiet: bool) -> tuple[list[float], list[float]]:
    """Microseconds per event for each tenth of `events`: of processor time, and on the clock."""
    batches = events // BATCH
    costs: list[float] = []
    waits: list[float] = []
    spent = waited = 0.0
    offset = 0
    for number in track(range(batches), "growing", disable=quiet):
        batch: list[Decoded] = []
        while len(batch) < BATCH:
            for event in episode(offset // (STEPS + 1)):
                batch.append(Decoded(Received(topic, 0, offset, None, b""), event))
                offset += 1
        began, processor = time.perf_counter(), time.process_time()
        store.append(batch)
        spent += time.process_time() - processor
        waited += time.perf_counter() - began
        if (number + 1) % (batches // 10) == 0:
            costs.append(spent * MILLION / (batches // 10 * BATCH))
            waits.append(waited * MILLION / (batches // 10 * BATCH))
            spent = waited = 0.0
    return costs, waits


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=MILLION, help="a multiple of 50,000")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    share_arenas()
    collect_rarely()
    with tempfile.TemporaryDirectory() as folder:
        kafka, path = KafkaSettings(), Path(folder) / "store.duckdb"
        store = Store.open(StoreSettings(path=path), HoldoutSettings(), kafka)
        costs, waits = grow(store, kafka.events_topic, options.events, options.json)
        store.close()
        began = time.perf_counter()
        Store.open(StoreSettings(path=path), HoldoutSettings(), kafka).close()
        report = {
            "events": options.events,
            "processor_us_per_event": [round(cost, 1) for cost in costs],
            "clock_us_per_event": [round(wait, 1) for wait in waits],
            "ratio": round(costs[-1] / costs[0], 3),
            "resident_mib": psutil.Process().memory_info().rss // 2**20,
            "file_mib": path.stat().st_size // 2**20,
            "reopened_s": round(time.perf_counter() - began, 1),
        }
    if options.json:
        print(json.dumps(report))
    else:
        for field, value in report.items():
            print(f"{field:>22} {value}")


if __name__ == "__main__":
    main()
