"""The parts that the cycles of a process share: clients, stores, and the tasks that gates may play."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import Protocol

import pyarrow as pa

from daemon.config import Settings
from daemon.learning.domain import (
    DomainTasks,
    check_judging,
    domain_tasks,
    golden_tasks,
    holdout_of,
)
from daemon.learning.task_lists import TaskSupply
from daemon.registry.registry import Registry
from daemon.registry.schemas import StatusReport
from daemon.serving.control_client import ControlClient
from daemon.serving.engine_client import engine_client
from learners.adapters import AdapterStore
from learners.provenance import Provenance
from ratchet_client.events import Task
from streams.policy.client import PolicyClient
from streams.sandboxes.pool import SandboxPool, sandbox_pool
from streams.store.client import StoreClient
from streams.store.database import Parameter
from streams.store.queries.learning import BRANCHING_STATE, BRANCHING_STATE_OF_GROUP
from streams.trust.groups import DEFAULT_GROUP, Members
from streams.trust.holdout import Split

ACTOR = "learner"


class Phase(StrEnum):
    """The phases of a cycle."""

    TRAINING = "training"
    GATE = "gate"
    OUT_OF_DOMAIN = "out of domain"


@dataclass(frozen=True, slots=True)
class Note:
    """A word on how a phase advances, and the figures that belong to it: of a training, or the gate that plays.

    `loss` is in nats per counted token, `losses` has each objective's own, `memory_bytes` is the most that the training
    process has had, `gradient_norm` of before it is clipped.
    """

    text: str
    gate: str = ""
    objective: str = ""
    loss: float | None = None
    losses: Mapping[str, float] = field(default_factory=dict)
    memory_bytes: int = 0
    tokens_per_s: float = 0.0
    gradient_norm: float | None = None

    def __str__(self) -> str:
        return self.text


class Watcher(Protocol):
    """Is told how a phase advances: `done` of `total` updates or episodes, and a word on it."""

    def __call__(self, phase: Phase, done: int, total: int, note: Note) -> None: ...


@dataclass(frozen=True, slots=True)
class Loop:
    """The clients, stores and tasks of a cycle.

    Made by `open_loop`; the parts are shared by all cycles of a process. Where no environment is set, no task is there
    and `pool` is not open. `members` are those whose episodes are learned from; None where that is all.
    """

    settings: Settings
    base: Path
    registry: Registry
    adapters: AdapterStore
    store: StoreClient
    policy: PolicyClient
    control: ControlClient
    pool: SandboxPool
    tasks: tuple[Task, ...]
    held_out: tuple[Task, ...]
    out_of_domain: tuple[Task, ...]
    confirmation: tuple[Task, ...] = ()
    golden: tuple[Task, ...] = ()
    # Of what suite and fold the environment generates further tasks; none where this is empty.
    generated: tuple[str, str] = ("", "")
    unsolvable: tuple[Task, ...] = ()
    members: Members | None = None

    def of_group(self, name: str, control: ControlClient) -> "Loop":
        """The same for a group of agents and tenants, whose changes `control` asks for."""
        settings = self.settings.of_group(name)
        return replace(
            self,
            settings=settings,
            registry=Registry(settings.home, name),
            adapters=AdapterStore(settings.home / "adapters"),
            control=control,
            members=settings.adapters.members(name),
        )

    async def count_of_members(self, of_all: str, of_group: str, **parameters: Parameter) -> pa.Table:
        """The answer to the query that fits `members`."""
        if self.members is None:
            return await self.store.query(of_all, parameters)
        return await self.store.query(of_group, parameters | self.members.parameters())

    async def practice_of_members(self, of_all: str, of_group: str, **parameters: Parameter) -> pa.Table:
        """The answer to the query, about practice, that fits `members`."""
        if self.members is None:
            return await self.store.query(of_all, parameters)
        return await self.store.query(of_group, parameters | self.members.practice_parameters())

    async def served_status(self) -> StatusReport:
        """The status of what serves, once it is loaded: the champion of a group may be cold."""
        status = await self.control.status()
        if not status.is_cold:
            return status
        await self.control.load()
        return await self.control.status()

    async def branching_state(self) -> tuple[int, int]:
        """Return the number of states and failed episodes to branch from, and the number branched from."""
        counts = await self.count_of_members(BRANCHING_STATE, BRANCHING_STATE_OF_GROUP)
        return counts["asked"][0].as_py(), counts["answered"][0].as_py()

    def supply(self) -> TaskSupply:
        """The tasks that gates may be given."""
        return TaskSupply((*self.held_out, *self.confirmation), self.golden, *self.generated)

    def provenance(self) -> Provenance:
        """Whose data the adapters saw, as their files tell it now."""
        return Provenance(self.adapters, self.settings.home / "snapshots")


@asynccontextmanager
async def open_loop(settings: Settings, base: Path) -> AsyncIterator[Loop]:
    """Connect to the roles that run and list the tasks of the gate.

    Raises `ConfigurationError` when the domain's environment cannot be played, or the gates' settings let none give a
    verdict.
    """
    domain = settings.domain
    check_judging(settings)
    async with (
        StoreClient(settings.store_url) as store,
        engine_client(settings.serving) as policy,
        ControlClient(settings.control_url) as control,
        AsyncExitStack() as opened,
    ):
        pool = sandbox_pool(domain.environment, settings.branching, size=1)
        found, golden = DomainTasks("", (), ()), tuple[Task, ...]()
        if domain.environment:
            await opened.enter_async_context(pool)
            found = await domain_tasks(domain, pool)
            golden = await golden_tasks(found, domain, settings.gate.golden.tasks, pool)
            settings = settings.model_copy(update={"holdout": await asyncio.to_thread(holdout_of, settings)})
        yield Loop(
            settings=settings,
            base=base,
            registry=Registry(settings.home),
            adapters=AdapterStore(settings.home / "adapters"),
            store=store,
            policy=policy,
            control=control,
            pool=pool,
            tasks=found.tasks,
            held_out=found.held_out(settings.holdout),
            # Gates never train on the other fold, but the same rule keeps its tasks as fresh as the others'.
            out_of_domain=tuple(
                task for task in found.out_of_domain if settings.holdout.split(task.task_id) is not Split.TRAIN
            )[: domain.out_of_domain_tasks],
            confirmation=found.held_out(settings.holdout, Split.CONFIRMATION),
            golden=golden,
            generated=(found.suite, domain.fold) if found.generates else ("", ""),
            unsolvable=found.unsolvable,
            members=settings.adapters.members(DEFAULT_GROUP),
        )
