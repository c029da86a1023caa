"""Costs of the pipeline's work as the benchmarks measured them, and what is assumed beside them.

`benchmarks.pipeline_model` and `benchmarks.capacity` are fed with these. Every figure names the benchmark or the page
that it is from; what nothing measured stands under `Assumptions`, and nowhere else.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.scaling_points import Kind, Point

FILE_TRANSACTION_S = 0.04
"""Processor seconds of a transaction of 15 records over a DuckDB file: `docs/scale.md`, "A transaction costs more"."""
LAKE_TRANSACTION_S = 0.25
"""The same over a lake, of the same table."""
TRAINING_RATIO = 0.68
"""Our tokens/s in training over the bare model's with frozen weights: `benchmarks.training`, `benchmarks/README.md`."""
STORE_BYTES_PER_EVENT = 105
"""Of a DuckDB file with small events: `benchmarks.growth --events 100000`, `file_mib` by `events`. Texts that repeat
less than the benchmark's compress less, so this is the least."""
GATE_TASKS = 269
"""Tasks that a gate plays in the mean, where the candidate equals the champion: `docs/gates.md`, "Simulated"."""
UPDATES = 160
"""Updates of a cycle: the default of `learner.stages`, `docs/learning.md`."""
MIN_NEW_EPISODES = 50
"""Trusted episodes that start a cycle: the default of `learner.min_new_episodes`, `docs/learning.md`."""
RETENTION_DAYS = 7
"""Days that Kafka keeps records: the default of `kafka.raw_retention_h`, `docs/operating.md`."""


@dataclass(frozen=True, slots=True)
class StoreCosts:
    """Processor seconds of a record role. All but `transaction_s` are of `benchmarks.scaling`, one role."""

    event_s: float
    """An event outside of its transaction: fetching, decoding, checks, redaction, publishing what follows from it."""
    write_event_s: float
    """An event in its transaction, beside what any transaction takes."""
    transaction_s: float
    """A transaction, however few its records are: `FILE_TRANSACTION_S` or `LAKE_TRANSACTION_S`."""
    postgres_s: float
    """PostgreSQL's own in a transaction; 0 over a file."""
    broker_s: float
    """The broker's for an event that is read and acknowledged."""
    batch: int
    """Events of a transaction while there is a backlog."""
    batch_s: float = 0.5
    """Longest wait for a batch to fill, on the clock: the default of `store.batch_s`."""

    @property
    def turn_s(self) -> float:
        """Of an event in the part that one role at a time does, in whole batches. Its inverse is the most of a lake."""
        return self.write_event_s + (self.transaction_s + self.postgres_s) / self.batch


@dataclass(frozen=True, slots=True)
class BranchCosts:
    """Processor seconds of a branch worker for a state: `benchmarks.scaling`, one worker, one sandbox, no policy."""

    role_s: float
    """The role's own process: reading, drawing alternatives, redacting and publishing results."""
    sandbox_s: float
    """The sandbox and its Java machine."""
    broker_s: float
    """The broker's for the state's share of the request, and its result."""


@dataclass(frozen=True, slots=True)
class Assumptions:
    """What nothing measured, each an option of `benchmarks.capacity`. Throughput and prices of GPUs are guesses.

    No part of Ratchet was run at scale on GPUs, see `docs/gpu.md`.
    """

    steps: int = 10
    """Steps of an episode; its outcome is one event more."""
    trusted: float = 0.5
    """Share of episodes that become trusted, are branched and trained on."""
    peak: float = 1.8
    """Load of the busiest hour over the mean; 1 is the same load all day."""
    utilisation: float = 0.6
    """Share of its capacity that anything is to be busy at the peak, so that there is some to catch up with."""
    event_bytes: int = 1500
    """Of an event as it is sent; that of `docs/privacy.md`, "What it costs"."""
    replication: int = 3
    """Copies of each record in Kafka."""
    samples: int = 6
    """Replies of the policy at a state: the default of `branching.samples`. 0 asks no policy."""
    parameters: float = 8e9
    """Of the model."""
    prompt_tokens: int = 600
    """Of a state. The replies of one state share it."""
    reply_tokens: int = 60
    """Of a reply."""
    tokens_per_update: int = 6000
    """Of the trees of a training update."""
    flops: float = 990e12
    """Floating-point operations per second of a GPU in bfloat16: the data sheet's of an H100 SXM, dense."""
    flops_used: float = 0.4
    """Share of them that a bare model reaches while it trains, and while it reads prompts."""
    decoded_per_s: float = 5000.0
    """Tokens per second that one GPU draws with full batches."""
    core_hour: float = 0.04
    """Price of an hour of a core with 4 GiB of memory."""
    gpu_hour: float = 2.5
    """Price of an hour of a GPU."""
    gigabyte_month: float = 0.08
    """Price of a gigabyte of disk in a month."""

    @property
    def prefill_per_s(self) -> float:
        """Prompt tokens per second of one GPU: a forward pass takes two operations per parameter and token."""
        return self.flops * self.flops_used / (2 * self.parameters)

    @property
    def trained_per_s(self) -> float:
        """Tokens per second of training on one GPU: six operations per parameter and token, times `TRAINING_RATIO`."""
        return TRAINING_RATIO * self.flops * self.flops_used / (6 * self.parameters)

    @property
    def state_gpu_s(self) -> float:
        """GPU seconds of the policy's replies at one state."""
        if not self.samples:
            return 0.0
        return self.prompt_tokens / self.prefill_per_s + self.samples * self.reply_tokens / self.decoded_per_s

    @property
    def cycle_gpu_s(self) -> float:
        """GPU seconds of a cycle: its updates, and both sides of one gate, whose chats are read once as they grow."""
        played = 2 * GATE_TASKS * (self.prompt_tokens + 2 * self.steps * self.reply_tokens)
        drawn = 2 * GATE_TASKS * self.steps * self.reply_tokens
        trained = UPDATES * self.tokens_per_update
        return trained / self.trained_per_s + played / self.prefill_per_s + drawn / self.decoded_per_s


def store_costs(points: Sequence[Point], kind: Kind) -> StoreCosts:
    """Costs of the points with one record role over this store.

    The seconds on the clock of a role's transactions are taken for as many of a core as it had of all its seconds.
    Raises `LookupError` where no such point was measured.
    """
    alone = _alone(points, kind)
    events = sum(point.counted for point in alone)
    transactions = sum(point.transactions for point in alone)
    written = sum(point.write_s * min(1.0, point.of_roles / point.seconds) for point in alone)
    fixed = LAKE_TRANSACTION_S if kind is Kind.LAKE else FILE_TRANSACTION_S
    return StoreCosts(
        event_s=(sum(point.of_roles for point in alone) - written) / events,
        write_event_s=max(0.0, written - fixed * transactions) / events,
        transaction_s=min(fixed, written / transactions),
        postgres_s=sum(point.of_postgres for point in alone) / transactions,
        broker_s=sum(point.of_broker for point in alone) / events,
        batch=math.ceil(events / transactions),
    )


def branch_costs(points: Sequence[Point]) -> BranchCosts:
    """Costs of the points with one branch worker. Raises `LookupError` where no such point was measured."""
    alone = _alone(points, Kind.BRANCH)
    states = sum(point.counted for point in alone)
    return BranchCosts(
        role_s=sum(point.of_roles for point in alone) / states,
        sandbox_s=sum(point.of_children for point in alone) / states,
        broker_s=sum(point.of_broker for point in alone) / states,
    )


def _alone(points: Sequence[Point], kind: Kind) -> list[Point]:
    alone = [point for point in points if point.kind is kind and point.workers == 1]
    if not alone:
        raise LookupError(f"no point of {kind} with one process: run `python -m benchmarks.scaling --keep`")
    return alone
