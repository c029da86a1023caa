"""The lists of tasks that a trial is given, and the counting of what it plays. `cycle.py` calls this.

The choice itself is `evaluation/task_account.py`; here are the file, the environment that generates, and the labels.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import blake2b

import structlog

from daemon.config import Settings
from daemon.registry.audit import Action
from daemon.registry.registry import Registry
from daemon.registry.task_uses import TaskUses, promotions
from evaluation.gates.gate import Evidence, TaskLists
from evaluation.settings import TaskListSettings
from evaluation.task_account import ListName, TrialBegun, draw
from ratchet_client.events import Task, family
from streams.errors import StoreError
from streams.sandboxes.pool import SandboxPool
from streams.store.client import StoreClient
from streams.store.queries.learning import LABELS_OF_TASKS
from streams.trust.holdout import HoldoutSettings, Split

log = structlog.get_logger()

_CHUNK = 1000
# An environment that goes on and on is asked for no more than this.
_MOST_GENERATED = 100_000


@dataclass(frozen=True, slots=True)
class TaskSupply:
    """The tasks that lists are drawn from: those that the environment lists, and, if it can, those that it generates.

    `suite` is asked to generate tasks like those of `fold`; none where it is empty.
    """

    listed: tuple[Task, ...]
    golden: tuple[Task, ...] = ()
    suite: str = ""
    fold: str = ""

    async def tasks(
        self, pool: SandboxPool, uses: Counter[str], holdout: HoldoutSettings, settings: TaskListSettings
    ) -> tuple[Task, ...]:
        """All of them, and so many generated ones that enough were never played, as far as there are any."""
        found = {task.task_id: task for task in self.listed}
        wanted = {Split.SELECTION: settings.selection_tasks, Split.CONFIRMATION: settings.fresh_tasks}
        fresh = Counter(holdout.split(task.task_id) for task in found.values() if not uses[family(task.task_id)])
        first = 0
        while self.suite and first < _MOST_GENERATED and any(fresh[split] < most for split, most in wanted.items()):
            made = await pool.generate(self.suite, self.fold, first, _CHUNK)
            # What it makes twice, or lists as well, is no further task.
            new = {task.task_id: task for task in made if task.task_id not in found}
            held_out = {name: task for name, task in new.items() if holdout.split(name) is not Split.TRAIN}
            found |= held_out
            fresh.update(holdout.split(name) for name in held_out if not uses[family(name)])
            first += _CHUNK
            if len(made) < _CHUNK:
                break
        return tuple(found.values())


def trial_number(registry: Registry, adapter: str) -> int:
    """The number of the trial that `adapter` is in, from 1, the same until it ends."""
    return 1 + sum(entry.action is Action.CYCLE and entry.subject == adapter for entry in registry.audit.read())


def trial_name(registry: Registry, adapter: str) -> str:
    """The name of the trial that `adapter` is in, the same until it ends: its digest and the number."""
    return f"{adapter}-{trial_number(registry, adapter)}"


async def drawn_lists(
    settings: Settings, registry: Registry, pool: SandboxPool, supply: TaskSupply, adapter: str
) -> TaskLists:
    """The lists of the trial of `adapter`; that they were given to it is on disk when this returns."""
    uses, lists = TaskUses(settings.home), settings.gate.lists
    trial, account = trial_name(registry, adapter), uses.account()
    promoted = promotions(registry)
    generation = account.generation(trial, promoted, lists.rotate_after)
    tasks = await supply.tasks(pool, account.uses(without=trial), settings.holdout, lists)
    drawn = draw(account, trial, generation, tasks, supply.golden, settings.holdout, lists)
    uses.begin(
        TrialBegun(
            trial=trial,
            adapter=adapter,
            generation=generation,
            promotions=promoted,
            selection=len(drawn.selection),
            confirmation=len(drawn.confirmation),
            fresh=len(drawn.unplayed().intersection(task.task_id for task in drawn.confirmation)),
            rotate_after=lists.rotate_after,
            at=datetime.now(UTC),
        )
    )
    return drawn


def counting(uses: TaskUses, trial: str, evidence: Evidence) -> Callable[[Sequence[Task]], None]:
    """Count the tasks that a gate is about to play, on disk, before it does. Those of no list are not counted."""

    def count(tasks: Sequence[Task]) -> None:
        lists = {
            task.task_id: name
            for name, members in (
                (ListName.SELECTION, evidence.tasks.selection),
                (ListName.CONFIRMATION, evidence.tasks.confirmation),
                (ListName.GOLDEN, evidence.tasks.golden),
                (ListName.UNSOLVABLE, evidence.tasks.unsolvable),
            )
            for task in members
        }
        known = [(lists[task.task_id], task.task_id) for task in tasks if task.task_id in lists]
        uses.count(trial, evidence.arena.gate, known)

    return count


async def labels_of(
    tasks: Sequence[Task], store: StoreClient, holdout: HoldoutSettings
) -> Mapping[str, Mapping[str, Sequence[str]]]:
    """The agents and tenants that met each task in production.

    What names a slice ends in the audit log, which cannot forget: a tenant is named by `tenant_label`.
    """
    ids = [task.task_id for task in tasks]
    if not ids:
        return {}
    found: defaultdict[str, defaultdict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    try:
        rows = await store.query(LABELS_OF_TASKS, {"environment": tasks[0].environment, "task_ids": ids})
    except StoreError as error:
        log.warning("slices of agents and tenants are not tested", reason=str(error))
        return {}
    for row in rows.to_pylist():
        if row["agent"]:
            found[row["task_id"]]["agent"].add(row["agent"])
        if row["principal"]:
            found[row["task_id"]]["tenant"].add(tenant_label(row["principal"], holdout))
    return {task: {label: sorted(values) for label, values in labels.items()} for task, labels in found.items()}


def tenant_label(principal: str, holdout: HoldoutSettings) -> str:
    """A name for a principal's slice that does not tell who it is without the holdout's key."""
    key = holdout.key.encode()[:64]
    return blake2b(f"tenant {principal}".encode(), key=key, digest_size=6).hexdigest()
