"""The account of held-out tasks: how often gates have played each, and which a trial plays next. Pure.

A list that has selected an adapter overstates it, so tasks are drawn by how little they were used. `daemon` keeps the
entries in a file and asks for the lists.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from hashlib import blake2b
from typing import Literal

from pydantic import AwareDatetime

from evaluation.account_summary import AccountSummary
from evaluation.gates.gate import TaskLists
from evaluation.settings import TaskListSettings
from ratchet_client.events import Task, family
from ratchet_client.settings import FrozenModel
from streams.trust.holdout import HoldoutSettings, Split


class ListName(StrEnum):
    """The lists of `TaskLists`."""

    SELECTION = "selection"
    CONFIRMATION = "confirmation"
    GOLDEN = "golden"
    UNSOLVABLE = "unsolvable"


class TrialBegun(FrozenModel):
    """A trial of `adapter` was given its lists.

    `generation` numbers the selection lists: it grows by one whenever other tasks are drawn. `promotions` is how many
    there had been by then. `selection` and `confirmation` are the lengths of its lists, `fresh` how many of the latter
    no gate had played. A list judges `rotate_after` trials at most.
    """

    kind: Literal["trial"] = "trial"
    trial: str
    adapter: str
    generation: int
    promotions: int
    selection: int
    confirmation: int
    fresh: int
    rotate_after: int
    at: AwareDatetime


class TasksUsed(FrozenModel):
    """Tasks that `gate` was about to play in a trial, for the first time there."""

    kind: Literal["used"] = "used"
    trial: str
    gate: str
    list: ListName
    tasks: tuple[str, ...]
    at: AwareDatetime


@dataclass(frozen=True, slots=True)
class TaskAccount:
    """What the entries of an account come to."""

    trials: tuple[TrialBegun, ...] = ()
    used: tuple[TasksUsed, ...] = ()

    @classmethod
    def of(cls, entries: Iterable[TrialBegun | TasksUsed]) -> "TaskAccount":
        """Entries in the order in which they were written."""
        every = list(entries)
        return cls(
            tuple(entry for entry in every if isinstance(entry, TrialBegun)),
            tuple(entry for entry in every if isinstance(entry, TasksUsed)),
        )

    def uses(self, *, without: str = "", before_generation: int | None = None) -> Counter[str]:
        """How many trials played each family, but the trial `without`; of earlier generations alone, if it is asked."""
        generations = {trial.trial: trial.generation for trial in self.trials}
        trials: defaultdict[str, set[str]] = defaultdict(set)
        for entry in self.used:
            earlier = before_generation is None or generations.get(entry.trial, 0) < before_generation
            if entry.trial != without and earlier:
                for task in entry.tasks:
                    trials[family(task)].add(entry.trial)
        return Counter({name: len(names) for name, names in trials.items()})

    def played(self, trial: str) -> frozenset[str]:
        """The ids of the tasks that are counted for a trial."""
        return frozenset(task for entry in self.used if entry.trial == trial for task in entry.tasks)

    def generation(self, trial: str, promotions: int, rotate_after: int) -> int:
        """The generation of the list of a trial: a new one after a promotion, or after `rotate_after` gates.

        A trial that is resumed stays with the list that it was given.
        """
        for begun in self.trials:
            if begun.trial == trial:
                return begun.generation
        if not self.trials:
            return 1
        last = self.trials[-1]
        is_spent = promotions > last.promotions or self.gates(last.generation) >= rotate_after
        return last.generation + is_spent

    def gates(self, generation: int) -> int:
        """The trials that the list of a generation was given to."""
        return len({begun.trial for begun in self.trials if begun.generation == generation})

    def summary(self, promotions: int) -> AccountSummary:
        """The account in figures, as of `promotions`, by the settings of the last trial."""
        last = self.trials[-1] if self.trials else None
        rotate_after = last.rotate_after if last else TaskListSettings().rotate_after
        next_list = self.generation("", promotions, rotate_after)
        by_list: defaultdict[str, set[str]] = defaultdict(set)
        for entry in self.used:
            by_list[entry.list.value] |= set(entry.tasks)
        counts = self.uses()
        selection = [counts[name] for name in {family(task) for task in by_list[ListName.SELECTION.value]}]
        # A trial says what was fresh before it; what it played since is not.
        since = {
            task
            for entry in self.used
            if last is not None and entry.trial == last.trial and entry.list is ListName.CONFIRMATION
            for task in entry.tasks
        }
        earlier = self.uses(without=last.trial) if last is not None else Counter[str]()
        return AccountSummary(
            trials=len({begun.trial for begun in self.trials}),
            generation=next_list,
            gates_until_rotation=rotate_after - self.gates(next_list),
            selection=last.selection if last else None,
            confirmation=last.confirmation if last else None,
            fresh=last.fresh - sum(not earlier[family(task)] for task in since) if last else None,
            uses={name: len(tasks) for name, tasks in sorted(by_list.items())},
            mean_uses=sum(selection) / len(selection) if selection else 0.0,
            most_uses=max(selection, default=0),
        )


def draw(
    account: TaskAccount,
    trial: str,
    generation: int,
    tasks: Sequence[Task],
    golden: Sequence[Task],
    holdout: HoldoutSettings,
    settings: TaskListSettings,
) -> TaskLists:
    """The lists of a trial, out of `tasks`; those of training are left out, and golden ones are in no other list.

    A selection list has the tasks that no trial has played, and then those that earlier generations used least; where
    the former make up half of a full list, there are no others in it. Of the confirmation tasks those come first that
    the fewest trials have played. Ties are broken by a keyed hash, so that an author of tasks cannot predict the
    order; families of variants stay together. A trial that is drawn for again, to resume it, is given the same.
    """
    pinned = {task.task_id for task in golden}
    by_split: dict[Split, list[Task]] = {split: [] for split in Split}
    for task in {task.task_id: task for task in tasks}.values():
        if task.task_id not in pinned:
            by_split[holdout.split(task.task_id)].append(task)
    uses = account.uses(without=trial)
    earlier = account.uses(without=trial, before_generation=generation)
    ranked = _least_used(by_split[Split.SELECTION], earlier, f"list {generation}", holdout)
    unplayed = [task for task in ranked if not uses[family(task.task_id)]]
    rest = [task for task in ranked if uses[family(task.task_id)]]
    selection = unplayed if 2 * len(unplayed) >= settings.selection_tasks else [*unplayed, *rest]
    selection = selection[: settings.selection_tasks]
    confirmation = _least_used(by_split[Split.CONFIRMATION], uses, f"trial {trial}", holdout)
    families = {family(task.task_id) for task in selection}
    earlier_trials = {entry.trial for entry in account.used if not families.isdisjoint(map(family, entry.tasks))} - {
        trial
    }
    return TaskLists(
        selection=tuple(selection),
        confirmation=tuple(confirmation),
        golden=tuple(golden),
        played=len(earlier_trials),
        fresh=frozenset(task.task_id for task in (*selection, *confirmation) if not uses[family(task.task_id)]),
    )


def _least_used(tasks: Sequence[Task], uses: Counter[str], purpose: str, holdout: HoldoutSettings) -> list[Task]:
    def place(task: Task) -> tuple[int, bytes, str]:
        name = family(task.task_id)
        keyed = blake2b(f"{purpose} {name}".encode(), key=holdout.key.encode()[:64], digest_size=16).digest()
        return uses[name], keyed, task.task_id

    return sorted(tasks, key=place)
