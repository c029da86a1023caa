"""A discrete-event model of the pipeline: events on Kafka's partitions, record roles, branch workers, and the learner.

`benchmarks.capacity` runs it. Events are moved in batches, each one step of the simulation, so that ten million
episodes a day are simulated in seconds. Time is in seconds, as is work: of one core.
"""

from collections import defaultdict, deque
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import simpy

from benchmarks.pipeline_figures import BranchCosts, StoreCosts

Arrivals: TypeAlias = Iterable[tuple[float, int]]
"""Moments in order, and how many come then."""
Steps: TypeAlias = Generator[simpy.Event, Any, None]

# Work of a branch worker in one step of the simulation.
_BUNDLE_S = 0.5


@dataclass(frozen=True, slots=True)
class Layout:
    """What is run, and what its work costs; without record roles, or branch workers, there need be no costs of theirs.

    `cores` may be less than the machine has where others use some of it. The GPUs of the policy together take
    `policy_s` for the replies at a state. An event that agents sent makes `states_per_event` states to branch, and of
    each comes a result, one more record to store. A cycle takes `cycle_s`; 0 is no learner. It begins when `min_new`
    trusted episodes came, of which an event is `trusted_per_event`.
    """

    store: StoreCosts | None
    branch: BranchCosts | None
    cores: float
    partitions: int
    record_roles: int = 1
    branch_workers: int = 0
    sandboxes: int = 1
    policy_s: float = 0.0
    states_per_event: float = 0.0
    trusted_per_event: float = 0.0
    cycle_s: float = 0.0
    min_new: int = 50


@dataclass(frozen=True, slots=True)
class Chunk:
    """So many records that came at one moment; `results` are of branch workers."""

    at: float
    count: int
    results: bool = False


class Backlog:
    """The records of some partitions, first in, first out."""

    def __init__(self, environment: simpy.Environment) -> None:
        self._environment = environment
        self._chunks: deque[Chunk] = deque()
        self._filled = environment.event()
        self.waiting = 0

    def put(self, chunk: Chunk) -> None:
        if chunk.count:
            self._chunks.append(chunk)
            self.waiting += chunk.count
            if not self._filled.triggered:
                self._filled.succeed()

    def take(self, most: int) -> list[Chunk]:
        """The oldest, `most` at most."""
        found = []
        while most and self._chunks:
            first = self._chunks.popleft()
            taken = min(most, first.count)
            if taken < first.count:
                self._chunks.appendleft(Chunk(first.at, first.count - taken, first.results))
            found.append(Chunk(first.at, taken, first.results))
            most -= taken
            self.waiting -= taken
        return found

    def some(self) -> simpy.Event:
        """Happens when there is something."""
        if self._filled.triggered and not self.waiting:
            self._filled = self._environment.event()
        return self._filled

    @property
    def age(self) -> float:
        """Seconds since the oldest came; 0 where nothing waits."""
        return self._environment.now - self._chunks[0].at if self._chunks else 0.0


@dataclass(slots=True)
class Waits:
    """How long records waited until their work was done."""

    count: int = 0
    total_s: float = 0.0
    longest_s: float = 0.0

    def add(self, chunks: Iterable[Chunk], now: float) -> None:
        for chunk in chunks:
            self.count += chunk.count
            self.total_s += chunk.count * (now - chunk.at)
            self.longest_s = max(self.longest_s, now - chunk.at)

    @property
    def mean_s(self) -> float:
        return self.total_s / self.count if self.count else 0.0


@dataclass(slots=True)
class Tally:
    """What came and what was done.

    `storing` and `branching` are in the hands of a role or a worker; `core_s` are seconds of a core by what used them.
    """

    produced: int = 0
    stored: int = 0
    results_stored: int = 0
    storing: int = 0
    states: int = 0
    branched: int = 0
    branching: int = 0
    cycles: int = 0
    trusted: float = 0.0
    events: Waits = field(default_factory=Waits)
    branches: Waits = field(default_factory=Waits)
    core_s: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))


class Pipeline:
    """The pipeline of a layout. Between the moments of `outage` its roles and workers stand still, and events come."""

    def __init__(
        self, layout: Layout, events: Arrivals, states: Arrivals = (), outage: tuple[float, float] | None = None
    ) -> None:
        self.environment = environment = simpy.Environment()
        self.tally = Tally()
        self._layout, self._outage = layout, outage
        # A part of a core that is left to us makes each of them slower.
        self._cores = simpy.Resource(environment, max(1, -int(-layout.cores // 1)))
        self._speed = layout.cores / self._cores.capacity
        self._turn = simpy.Resource(environment)
        self._policy = simpy.Resource(environment)
        self._owed_states = 0.0
        self.recorded = _Shares(environment, layout.record_roles, layout.partitions)
        self.to_branch = _Shares(environment, layout.branch_workers, layout.partitions)
        environment.process(self._arrive(events, self._event_came))
        environment.process(self._arrive(states, self._state_came))
        if layout.store is not None:
            for backlog in self.recorded.backlogs:
                environment.process(self._record_role(backlog, layout.store))
        if layout.branch is not None:
            for backlog in self.to_branch.backlogs:
                asked, restored = (simpy.Store(environment, layout.sandboxes) for _ in range(2))
                environment.process(self._branch_worker(backlog, asked, layout.branch))
                environment.process(self._ask(asked, restored))
                for _ in range(layout.sandboxes):
                    environment.process(self._sandbox(restored, layout.branch))
        self._enough = environment.event()
        if layout.cycle_s:
            environment.process(self._learner())

    def run(self, until: float | simpy.Event | None = None) -> Tally:
        """Simulate up to a moment or an event, or by default until nothing is left to do."""
        self.environment.run(until)
        return self.tally

    def _arrive(self, arrivals: Arrivals, came: Callable[[int], None]) -> Steps:
        for at, count in arrivals:
            if at > self.environment.now:
                yield self.environment.timeout(at - self.environment.now)
            came(count)
        yield self.environment.timeout(0)

    def _event_came(self, count: int) -> None:
        self.tally.produced += count
        self.recorded.put(self.environment.now, count)

    def _state_came(self, count: int) -> None:
        self.tally.states += count
        self.to_branch.put(self.environment.now, count)

    def _use(self, seconds: float, what: str) -> Steps:
        with self._cores.request() as core:
            yield core
            yield self.environment.timeout(seconds / self._speed)
        self.tally.core_s[what] += seconds

    def _stand_still(self) -> Steps:
        if self._outage and self._outage[0] <= self.environment.now < self._outage[1]:
            yield self.environment.timeout(self._outage[1] - self.environment.now)

    def _record_role(self, backlog: Backlog, costs: StoreCosts) -> Steps:
        while True:
            yield backlog.some()
            yield from self._stand_still()
            if backlog.waiting < costs.batch and costs.batch_s:
                yield self.environment.timeout(costs.batch_s)
                yield from self._stand_still()
            chunks = backlog.take(costs.batch)
            count = sum(chunk.count for chunk in chunks)
            self.tally.storing += count
            self.environment.process(self._use(count * costs.broker_s, "broker"))
            yield from self._use(count * costs.event_s, "record")
            with self._turn.request() as turn:
                yield turn
                yield from self._use(costs.transaction_s + count * costs.write_event_s, "record")
                if costs.postgres_s:
                    yield from self._use(costs.postgres_s, "postgres")
            self.tally.storing -= count
            self._stored(chunks)

    def _stored(self, chunks: list[Chunk]) -> None:
        fresh = [chunk for chunk in chunks if not chunk.results]
        count = sum(chunk.count for chunk in fresh)
        self.tally.stored += count
        self.tally.results_stored += sum(chunk.count for chunk in chunks) - count
        self.tally.events.add(fresh, self.environment.now)
        self._owed_states += count * self._layout.states_per_event
        states = int(self._owed_states)
        self._owed_states -= states
        self._state_came(states)
        self.tally.trusted += count * self._layout.trusted_per_event
        if not self._enough.triggered:
            self._enough.succeed()

    def _branch_worker(self, backlog: Backlog, asked: simpy.Store, costs: BranchCosts) -> Steps:
        most = max(1, int(_BUNDLE_S / max(costs.role_s, costs.sandbox_s)))
        while True:
            yield backlog.some()
            yield from self._stand_still()
            chunks = backlog.take(most)
            count = sum(chunk.count for chunk in chunks)
            self.tally.branching += count
            self.environment.process(self._use(count * costs.broker_s, "broker"))
            yield from self._use(count * costs.role_s, "branch")
            yield asked.put(chunks)

    def _ask(self, asked: simpy.Store, restored: simpy.Store) -> Steps:
        while True:
            chunks: list[Chunk] = yield asked.get()
            if self._layout.policy_s:
                with self._policy.request() as turn:
                    yield turn
                    count = sum(chunk.count for chunk in chunks)
                    yield self.environment.timeout(count * self._layout.policy_s)
            yield restored.put(chunks)

    def _sandbox(self, restored: simpy.Store, costs: BranchCosts) -> Steps:
        while True:
            chunks: list[Chunk] = yield restored.get()
            count = sum(chunk.count for chunk in chunks)
            yield from self._use(count * costs.sandbox_s, "sandboxes")
            self.tally.branching -= count
            self.tally.branched += count
            self.tally.branches.add(chunks, self.environment.now)
            self.recorded.put(self.environment.now, count, results=True)

    def _learner(self) -> Steps:
        learned = 0.0
        while True:
            while self.tally.trusted < learned + self._layout.min_new:
                self._enough = self.environment.event()
                yield self._enough
            learned = self.tally.trusted
            yield self.environment.timeout(self._layout.cycle_s)
            self.tally.cycles += 1


class _Shares:
    """Backlogs of the members of a consumer group, each with those of its partitions."""

    def __init__(self, environment: simpy.Environment, members: int, partitions: int) -> None:
        # Members beyond the partitions stand idle.
        self.backlogs = [Backlog(environment) for _ in range(min(members, partitions))]
        self._partitions = partitions
        self._next = 0

    def put(self, at: float, count: int, results: bool = False) -> None:
        """One to each partition in turn."""
        if not self.backlogs:
            return
        rounds, rest = divmod(count, self._partitions)
        counts = [rounds * len(range(member, self._partitions, len(self.backlogs))) for member in self._members]
        for partition in range(self._next, self._next + rest):
            counts[partition % self._partitions % len(self.backlogs)] += 1
        self._next = (self._next + rest) % self._partitions
        for backlog, its in zip(self.backlogs, counts, strict=True):
            backlog.put(Chunk(at, its, results))

    @property
    def _members(self) -> range:
        return range(len(self.backlogs))

    @property
    def waiting(self) -> int:
        return sum(backlog.waiting for backlog in self.backlogs)

    @property
    def age(self) -> float:
        """Seconds since the oldest of all came."""
        return max((backlog.age for backlog in self.backlogs), default=0.0)
