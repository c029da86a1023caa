"""A storm of random kills under load: `python -m tests.crash.storm --kills 200 [--lake]`.

The writer, the branch workers, the publishing agents and Apache Kafka itself are killed by SIGKILL at random instants,
most of them when all is well again, one in five before (`--again`). With `--lake` the store is one, with two writers
and a PostgreSQL of its own. Ends with status 1 when anything was lost, doubled or did not come back.
"""

import argparse
import math
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from statistics import fmean

import duckdb
import pytest
from pydantic import BaseModel, ConfigDict

from ratchet_client.ids import uuid7
from streams.kafka.settings import KafkaSettings
from streams.store.settings import LakeSettings
from tests.crash.invariants import ALWAYS, broken, broken_in_file, lost
from tests.crash.stage import AGENTS, LIBRARY, NotConvergedError, Stage, on_stage, played
from tests.crash.victims import Victim
from tests.kafka_node import KafkaNode
from tests.postgres import running_postgres

SESSION_TIMEOUT_S = 6.0  # the shortest that Apache Kafka allows by default
KAFKA = "kafka"
PAUSE_S = 0.3
# Kafka takes longest to come back, so it dies least often.
WEIGHTS = {"recorder": 9, "brancher": 5, AGENTS: 2, LIBRARY: 2, KAFKA: 2}
AGAIN = 0.2
_LONGEST_CALM_S = 3.0


class Convergence(BaseModel):
    """Seconds from the last kill of a blow until all was well again."""

    model_config = ConfigDict(frozen=True)

    blows: int
    mean_s: float
    longest_s: float


class StormReport(BaseModel):
    """What a storm did, and what it found. `lost` and `doubled` count events; `findings` say all that is wrong.

    `kills` are by target. `convergence` is by target for blows of one kill, and `several` for those of more.
    `resent` counts records that came again and were recognised, `revivals` deaths not ordered, such as that of
    a role whose cluster was killed, and `copies` the files that were inspected as a kill of the writer left them.
    """

    model_config = ConfigDict(frozen=True)

    seed: int
    kills: dict[str, int]
    convergence: dict[str, Convergence]
    acknowledged: int
    stored: int
    lost: int
    doubled: int
    resent: int
    malformed: int
    branch_results: int
    revivals: int
    copies: int
    seconds: float
    findings: tuple[str, ...]


class StormPlan(BaseModel):
    """How often is killed, what with the `seed`, and for how many minutes at most.

    `again` is the share of kills that come before the last one is overcome, and `pause_s` how long an agent waits after
    a batch. With `lake` the store is in a new lake, and PostgreSQL must be installed.
    """

    model_config = ConfigDict(frozen=True)

    kills: int
    seed: int
    again: float = AGAIN
    minutes: float = math.inf
    pause_s: float = PAUSE_S
    lake: bool = False


class Storm:
    """Kills what is on the stage, and watches it come back."""

    def __init__(self, stage: Stage, node: KafkaNode, plan: StormPlan, scratch: Path) -> None:
        self._stage = stage
        self._node = node
        self._plan = plan
        self._random = random.Random(plan.seed)
        self._scratch = scratch
        self._took: defaultdict[str, list[float]] = defaultdict(list)
        self._findings: list[str] = []
        self._copies = 0
        self._kills: Counter[str] = Counter()
        self._began = time.monotonic()

    def run(self, tell: Callable[[str], None]) -> StormReport:
        """Kill as planned, then let everything drain and check it once more."""
        kills = self._plan.kills
        for victim in self._stage.victims:
            victim.start()
        try:
            self._stage.wait_until("the first events are stored", lambda: bool(self._stage.ask("FROM trusted LIMIT 1")))
            for blow in self._blows(kills):
                if time.monotonic() - self._began > self._plan.minutes * 60:
                    break
                self._calm()
                took = self._strike(blow)
                self._took[blow[0] if len(blow) == 1 else "several"].append(took)
                done, names = self._kills.total(), " + ".join(blow)
                tell(f"{done}/{kills} {names}: well again after {took:.1f} s, {len(self._findings)} findings")
            self._stage.stop.touch()
            self._stage.wait_until("everything is drained", self._stage.drained)
            self._findings += self._stage.findings()
        except NotConvergedError as error:
            self._findings.append(str(error))
        return self._report()

    def _blows(self, kills: int) -> list[list[str]]:
        """What dies together, in an order of chance; each target at least once if there are kills enough."""
        names = list(WEIGHTS)
        targets = names[:kills] + self._random.choices(names, list(WEIGHTS.values()), k=max(0, kills - len(names)))
        self._random.shuffle(targets)
        blows: list[list[str]] = []
        for target in targets:
            if blows and self._random.random() < self._plan.again:
                blows[-1].append(target)
            else:
                blows.append([target])
        return blows

    def _calm(self) -> None:
        until = time.monotonic() + self._random.uniform(0, _LONGEST_CALM_S)
        while time.monotonic() < until:
            for victim in self._stage.victims:
                victim.revive()
            time.sleep(0.05)

    def _strike(self, blow: list[str]) -> float:
        """Kill all of `blow`, wait until what was acknowledged by then is stored and branched; returns seconds."""
        self._kill(blow[0])
        for target in blow[1:]:
            self._calm()
            self._kill(target)
        struck, names = time.monotonic(), " + ".join(blow)
        mark = self._stage.acknowledged()
        before = [ledger.read().batches for ledger in self._stage.loads.values()]
        self._stage.wait_until(
            f"the loads go on after {names}",
            lambda: all(
                ledger.read().batches > last for ledger, last in zip(self._stage.loads.values(), before, strict=True)
            ),
        )
        self._stage.wait_until(f"all is stored after {names}", self._stage.stores(mark.events))
        self._findings += (f"after {names}: {found}" for found in self._stage.vanished())
        sequence = int(str(self._stage.ask("SELECT max(sequence) FROM trusted")[0][0]))
        self._stage.wait_until(f"all is branched after {names}", lambda: self._branched(sequence))
        took = time.monotonic() - struck
        self._findings += (f"after {names}: {found}" for found in broken(self._stage.ask, ALWAYS, self._stage.kafka))
        return took

    def _kill(self, target: str) -> None:
        self._kills[target] += 1
        if target == KAFKA:
            self._node.kill()
            self._node.start()
            return
        victim = self._victim(target)
        victim.end(signal.SIGKILL)
        if victim is not self._stage.recorder or self._stage.store.is_lake:
            victim.start()
            return
        with tempfile.TemporaryDirectory(dir=self._scratch) as folder:
            copy = self._copy(Path(folder))
            victim.start()
            self._inspect(copy)

    def _victim(self, target: str) -> Victim:
        several = {"brancher": self._stage.branchers, "recorder": self._stage.recorders}
        if target in several:
            return self._random.choice(several[target])
        return next(victim for victim in self._stage.victims if victim.name == target)

    def _copy(self, folder: Path) -> Path:
        """The store's file and its write-ahead log just as the kill left them."""
        path = self._stage.store.path
        for source in (path, path.with_name(f"{path.name}.wal")):
            if source.exists():
                shutil.copy(source, folder)
        return folder / path.name

    def _inspect(self, copy: Path) -> None:
        if not copy.exists():
            return
        self._copies += 1
        try:
            found = broken_in_file(copy, ALWAYS, self._stage.kafka)
        except duckdb.Error as error:
            found = [f"it does not open or takes no checkpoint: {error}"]
        self._findings += (f"in the file as a kill left it: {finding}" for finding in found)

    def _branched(self, sequence: int) -> bool:
        waiting = self._stage.ask(
            "SELECT count(*) FROM (FROM (SELECT episode_id, split, sequence FROM trusted) "
            "UNION ALL SELECT episode_id, split, sequence FROM failed) "
            f"WHERE split = 'train' AND sequence <= {sequence} AND episode_id NOT IN "
            "(SELECT episode_id FROM branches UNION SELECT episode_id FROM recovery_attempts)"
        )
        return waiting[0][0] == 0

    def _report(self) -> StormReport:
        stage = self._stage
        acknowledged = stage.acknowledged()
        for writer in stage.recorders:
            writer.end(signal.SIGKILL)
        with stage.opened() as store:

            def ask(sql: str) -> list[tuple[object, ...]]:
                return store.execute(sql).fetchall()

            def count(sql: str) -> int:
                return int(str(ask(f"SELECT {sql}")[0][0]))

            return StormReport(
                seed=self._plan.seed,
                kills=dict(sorted(self._kills.items())),
                convergence={
                    target: Convergence(blows=len(took), mean_s=round(fmean(took), 1), longest_s=round(max(took), 1))
                    for target, took in sorted(self._took.items())
                },
                acknowledged=len(acknowledged.events) + len(acknowledged.malformed),
                stored=count("count(*) FROM events"),
                lost=len(lost(ask, acknowledged)),
                doubled=count("count(*) - count(DISTINCT event_id) FROM events"),
                resent=count("count(*) FROM duplicates"),
                malformed=count("count(*) FROM dead_letters"),
                branch_results=count("count(*) FROM branches"),
                revivals=sum(victim.revivals for victim in stage.victims),
                copies=self._copies,
                seconds=round(time.monotonic() - self._began, 1),
                findings=tuple(self._findings),
            )


def storm(folder: Path, plan: StormPlan, tell: Callable[[str], None]) -> StormReport:
    """Set a stage on a fresh Apache Kafka node in `folder`, and let the storm loose on it."""
    tell(f"seed {plan.seed}")
    with ExitStack() as stack:
        settings = None
        if plan.lake:
            catalog = stack.enter_context(running_postgres()).database()
            settings = LakeSettings(catalog=catalog, data=folder.absolute() / "lake")
        recordings = played()
        node = KafkaNode(folder / "kafka")
        stack.callback(node.kill)
        node.start()
        kafka = KafkaSettings(
            bootstrap=node.bootstrap, session_timeout_s=SESSION_TIMEOUT_S, partitions=4, group_prefix=uuid7()
        )
        stage = stack.enter_context(on_stage(kafka, folder, recordings, workers=2, pause_s=plan.pause_s, lake=settings))
        return Storm(stage, node, plan, folder).run(tell)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=None, help="what is killed when; by default another each time")
    parser.add_argument("--lake", action="store_true", help="over a lake, which two record roles write")
    parser.add_argument(
        "--pause",
        type=float,
        default=PAUSE_S,
        metavar="SECONDS",
        help="of an agent after a batch; more on a slow machine",
    )
    parser.add_argument(
        "--again", type=float, default=AGAIN, metavar="SHARE", help="of kills before the last one is overcome"
    )
    parser.add_argument(
        "--minutes", type=float, default=math.inf, help="no kill begins after them, however many are left"
    )
    parser.add_argument("--json", type=Path, help="also write the report to this file")
    parser.add_argument("--folder", type=Path, help="keep the store and all logs here")
    arguments = parser.parse_args()
    plan = StormPlan(
        kills=arguments.kills,
        seed=random.randrange(2**32) if arguments.seed is None else arguments.seed,
        again=arguments.again,
        minutes=arguments.minutes,
        pause_s=arguments.pause,
        lake=arguments.lake,
    )
    with tempfile.TemporaryDirectory() as scratch:
        folder = arguments.folder or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        try:
            report = storm(folder, plan, partial(print, flush=True))
        except pytest.skip.Exception as missing:
            parser.error(str(missing))
    text = report.model_dump_json(indent=2)
    print(text)
    if arguments.json:
        arguments.json.write_text(text + "\n")
    sys.exit(bool(report.findings))


if __name__ == "__main__":
    main()
