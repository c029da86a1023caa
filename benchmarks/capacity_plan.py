"""What so many episodes a day need, and what an outage does to them: the arithmetic and the simulation of a plan.

`benchmarks.capacity` prints it.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from benchmarks.pipeline_figures import (
    MIN_NEW_EPISODES,
    RETENTION_DAYS,
    STORE_BYTES_PER_EVENT,
    Assumptions,
    BranchCosts,
    StoreCosts,
)
from benchmarks.pipeline_model import Layout, Pipeline, Steps
from benchmarks.scaling_points import Kind

DAY_S = 86_400.0
MONTH_DAYS = 30
BEFORE_S = 600.0
"""The simulation begins so long before the outage."""
CAUGHT_UP_S = 60.0
"""A backlog is caught up with when its oldest is younger than this."""
_LOOK_S = 5.0


@dataclass(frozen=True, slots=True)
class Plan:
    """What a load needs, and what the simulation says of it.

    Rates are per second at the busiest moment, `records` with the results of branching. `stores` are installations with
    a share of the agents each, more than one where one store cannot write all; roles and workers are of all of them.
    `learning_gpus` are those of cycles, in the mean; the others are the policy's. `freshness_min` is from when an
    episode is trusted until the cycle that learns from it ends, in the mean. `kafka_gb` are held at once,
    `store_gb_month` come on top each month. `lag_…` are how many waited when the outage ended, of states at most after
    it; `caught_up_…_min` are minutes from then, None where not within a day. `outage_wait_s` is the mean time until an
    event was stored, over all that was simulated. `cost` is of a month.
    """

    episodes_per_day: float
    events: float
    records: float
    states: float
    store: Kind
    stores: int
    record_roles: int
    branch_workers: int
    partitions: int
    cores: int
    gpus: int
    learning_gpus: float
    gpu_hours_per_day: float
    cycles_per_day: float
    cycle_min: float
    freshness_min: float
    kafka_gb: float
    store_gb_month: float
    lag_events: int
    caught_up_events_min: float | None
    lag_states: int
    caught_up_states_min: float | None
    outage_wait_s: float
    cost: float


def day(per_day: float, peak: float, begin: float, end: float, slice_s: float = 1.0) -> Iterator[tuple[float, int]]:
    """Arrivals between two moments of days whose busiest is noon: the mean times 1 + (peak - 1) cos.

    Raises `ValueError` for a peak that is not from 1 to 2: the load of the night would be negative.
    """
    if not 1 <= peak <= 2:
        raise ValueError(f"a peak of {peak} times the mean is not a curve of this form: give one from 1 to 2")

    def until(at: float) -> int:
        turn = 2 * math.pi / DAY_S
        swing = (peak - 1) * math.sin(turn * (at - DAY_S / 2)) / turn
        return math.floor(per_day / DAY_S * (at + swing))

    at, sent = begin, until(begin)
    while at < end:
        at = min(at + slice_s, end)
        now = until(at)
        if now > sent:
            yield at, now - sent
            sent = now


def plan(episodes: float, costs: Mapping[Kind, StoreCosts], branch: BranchCosts, assumed: Assumptions) -> Plan:
    """What so many episodes a day need; an outage of an hour is not simulated yet."""
    peak, use = episodes / DAY_S * assumed.peak, assumed.utilisation
    events, states = peak * (assumed.steps + 1), peak * assumed.trusted * assumed.steps
    records = events + states
    kind = Kind.FILE if records <= use / (costs[Kind.FILE].event_s + costs[Kind.FILE].turn_s) else Kind.LAKE
    store = costs[kind]
    stores = 1 if kind is Kind.FILE else math.ceil(records * store.turn_s / use)
    roles = stores * max(1, math.ceil(records / stores * (store.event_s + store.turn_s) / use))
    workers = max(stores, math.ceil(states * max(branch.role_s, branch.sandbox_s) / use))
    workers = stores * math.ceil(workers / stores)
    per_record = store.event_s + store.turn_s + store.broker_s
    per_state = branch.role_s + branch.sandbox_s + branch.broker_s
    cores = max(2, math.ceil((records * per_record + states * per_state) / use))
    cycle_s = assumed.cycle_gpu_s
    cycles = min(episodes * assumed.trusted / MIN_NEW_EPISODES, DAY_S / cycle_s) if episodes else 0.0
    learning = cycles * cycle_s / DAY_S
    gpus = max(1, math.ceil(states * assumed.state_gpu_s / use + learning))
    daily = episodes * (assumed.steps + 1 + assumed.trusted * assumed.steps)
    kafka_gb = daily * assumed.event_bytes * RETENTION_DAYS * assumed.replication / 1e9
    store_gb = daily * MONTH_DAYS * STORE_BYTES_PER_EVENT / 1e9
    month_h = MONTH_DAYS * 24
    return Plan(
        episodes_per_day=episodes,
        events=events,
        records=records,
        states=states,
        store=kind,
        stores=stores,
        record_roles=roles,
        branch_workers=workers,
        partitions=2 ** math.ceil(math.log2(max(4, 2 * max(roles, workers) / stores))),
        cores=cores,
        gpus=gpus,
        learning_gpus=learning,
        gpu_hours_per_day=(episodes * assumed.trusted * assumed.steps * assumed.state_gpu_s + cycles * cycle_s) / 3600,
        cycles_per_day=cycles,
        cycle_min=cycle_s / 60,
        freshness_min=(DAY_S / cycles / 2 + cycle_s) / 60 if cycles else 0.0,
        kafka_gb=kafka_gb,
        store_gb_month=store_gb,
        lag_events=0,
        caught_up_events_min=None,
        lag_states=0,
        caught_up_states_min=None,
        outage_wait_s=0.0,
        cost=month_h * (cores * assumed.core_hour + gpus * assumed.gpu_hour)
        + assumed.gigabyte_month * (kafka_gb + store_gb),
    )


def after_outage(planned: Plan, store: StoreCosts, branch: BranchCosts, assumed: Assumptions, outage_s: float) -> Plan:
    """The plan with the lag after an outage that ends at the busiest moment, and until it is caught up with.

    One of the stores is simulated, with its share of everything; each has its own machines.
    """
    ends = DAY_S / 2
    begins = ends - outage_s
    share = 1 / planned.stores
    layout = Layout(
        store=store,
        branch=branch,
        cores=math.ceil(planned.cores * share),
        partitions=planned.partitions,
        record_roles=planned.record_roles // planned.stores,
        branch_workers=planned.branch_workers // planned.stores,
        states_per_event=assumed.trusted * assumed.steps / (assumed.steps + 1),
        trusted_per_event=assumed.trusted / (assumed.steps + 1),
        policy_s=assumed.samples and assumed.state_gpu_s / (planned.gpus - planned.learning_gpus) / share,
        cycle_s=assumed.cycle_gpu_s,
        min_new=MIN_NEW_EPISODES,
    )
    per_day = planned.episodes_per_day * share * (assumed.steps + 1)
    arrivals = day(per_day, assumed.peak, begins - BEFORE_S, ends + DAY_S)
    pipeline = Pipeline(layout, arrivals, outage=(begins, ends))
    told = _Recovery()
    pipeline.run(pipeline.environment.process(told.watch(pipeline, ends)))
    return replace(
        planned,
        lag_events=round(told.lag_events / share),
        caught_up_events_min=told.events_min,
        lag_states=round(told.most_states / share),
        caught_up_states_min=told.states_min,
        outage_wait_s=pipeline.tally.events.mean_s,
    )


@dataclass(slots=True)
class _Recovery:
    """The lag at the end of an outage, and the minutes until records and states are caught up with, in that order."""

    lag_events: int = 0
    most_states: int = 0
    events_min: float | None = None
    states_min: float | None = None

    def watch(self, pipeline: Pipeline, ends: float) -> Steps:
        now = pipeline.environment
        yield now.timeout(ends)
        self.lag_events = pipeline.recorded.waiting
        while now.now < ends + DAY_S:
            yield now.timeout(_LOOK_S)
            self.most_states = max(self.most_states, pipeline.to_branch.waiting)
            if self.events_min is None and pipeline.recorded.age < CAUGHT_UP_S:
                self.events_min = (now.now - ends) / 60
            # Of states there are none before their events are stored.
            if self.events_min is not None and pipeline.to_branch.age < CAUGHT_UP_S:
                self.states_min = (now.now - ends) / 60
                return
