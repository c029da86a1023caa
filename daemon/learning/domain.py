"""The domain that gates are played in: its tasks, and whether it can be the agent's.

The learn role and the commands that check a configuration call it, so that a gate on the wrong environment is refused
before anything is trained for it.
"""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from daemon.config import DomainSettings, Settings
from daemon.learning.gates import check_gates
from ratchet_client.errors import ConfigurationError
from ratchet_client.events import Task
from streams.environments.registry import other_names_of, registered_environments
from streams.errors import SandboxError, StoreError
from streams.sandboxes.pool import SandboxPool, sandbox_pool
from streams.store.client import StoreClient
from streams.store.queries.conversations import ENVIRONMENTS
from streams.trust.holdout import HoldoutSettings, Split

UNSET = "no domain is set, so there is nothing to play a gate in, and nothing is learned"
SET = (
    "set domain.environment to a sandbox environment (`ratchet environment list`); `ratchet environment new` makes one "
    "of your own tools. Without any, domain.recorded lets it learn by a weaker gate"
)
RECORDED = (
    "no domain is set: candidates are judged by recorded states and not by playing, which is weaker, and serve as "
    "canaries first"
)


@dataclass(frozen=True, slots=True)
class DomainTasks:
    """The tasks of a domain: of its suite `suite`, those of its own fold, and those of the fold outside of it.

    `unsolvable` are those of the suite that only a cheat solves. `generates` says that the environment may be asked for
    more tasks.
    """

    suite: str
    tasks: tuple[Task, ...]
    out_of_domain: tuple[Task, ...]
    unsolvable: tuple[Task, ...] = ()
    generates: bool = False

    def held_out(self, holdout: HoldoutSettings, split: Split = Split.SELECTION) -> tuple[Task, ...]:
        """The tasks that gates are played on, or those of another split."""
        return tuple(task for task in self.tasks if holdout.split(task.task_id) is split)

    def golden(self, environment: str, ids: Sequence[str]) -> tuple[Task, ...]:
        """The tasks of these ids. One that is not listed may all the same be one that the environment can begin."""
        known = {task.task_id: task for task in (*self.tasks, *self.out_of_domain)}
        return tuple(known.get(task_id) or Task(environment=environment, task_id=task_id) for task_id in ids)


def check_judging(settings: Settings) -> None:
    """Raise `ConfigurationError` for gates that are not installed, and for settings that let none give a verdict.

    So it is where recorded states, which prove too little, are to judge and no canary follows.
    """
    if is_judged(settings.domain):
        check_gates(settings)
    domain = settings.domain
    if domain.recorded and not domain.environment and not settings.serving.canary.share > 0:
        raise ConfigurationError(
            "domain.recorded judges candidates without playing, so each must serve as a canary first: set "
            "serving.canary.share, 0.1 for instance, or give the agent a sandbox by domain.environment"
        )


def is_judged(domain: DomainSettings) -> bool:
    """Return whether there is anything to judge a candidate by: a sandbox, or recorded states."""
    return bool(domain.environment) or domain.recorded


async def domain_tasks(domain: DomainSettings, pool: SandboxPool) -> DomainTasks:
    """List the tasks in a sandbox. Raises `ConfigurationError` when the environment has no such suite or fold."""
    try:
        description = await pool.describe()
    except SandboxError as error:
        raise _unplayable(domain, f"it cannot be opened: {error}") from error
    suites = description.games
    if not suites:
        raise _unplayable(domain, "it brings no tasks of its own")
    suite = domain.suite or (suites[0] if len(suites) == 1 else "")
    if suite not in suites:
        found = f"it has no suite {suite!r}" if suite else "it has several suites and domain.suite names none"
        raise _unplayable(domain, f"{found}; it has {', '.join(suites)}")
    others: Sequence[Task] = ()
    tasks = await _fold(domain, pool, suite, domain.fold, "domain.fold")
    if domain.out_of_domain_fold and domain.out_of_domain_tasks:
        others = await _fold(domain, pool, suite, domain.out_of_domain_fold, "domain.out_of_domain_fold")
    unsolvable = await _unsolvable(domain, pool, suite)
    # An environment that can be asked may have none: a toolbox generates only where its file names a program.
    generates = description.generates_tasks and bool(await pool.generate(suite, domain.fold, 0, 1))
    return DomainTasks(suite, tuple(tasks), tuple(others), unsolvable, generates)


async def _fold(domain: DomainSettings, pool: SandboxPool, suite: str, fold: str, key: str) -> tuple[Task, ...]:
    remedy = f"; correct {key}" + (", or leave it empty" if fold == domain.out_of_domain_fold else "")
    try:
        tasks = await pool.tasks(suite, fold)
    except SandboxError as error:
        raise _unplayable(domain, f"its suite {suite!r} has no fold {fold!r} to play: {error}{remedy}") from error
    if not tasks:
        raise _unplayable(domain, f"the fold {fold!r} of its suite {suite!r} has no tasks{remedy}")
    return _distinct(tasks)


def _distinct(tasks: Sequence[Task]) -> tuple[Task, ...]:
    """An environment may list a task twice; it counts once."""
    return tuple({task.task_id: task for task in tasks}.values())


async def golden_tasks(
    found: DomainTasks, domain: DomainSettings, ids: Sequence[str], pool: SandboxPool
) -> tuple[Task, ...]:
    """The golden tasks. Raises `ConfigurationError` for one that the environment cannot begin."""
    listed = {task.task_id for task in (*found.tasks, *found.out_of_domain)}
    golden = found.golden(domain.environment, ids)
    unlisted = [task for task in golden if task.task_id not in listed]
    if unlisted:
        async with pool.session() as session:
            for task in unlisted:
                try:
                    await session.reset(task)
                except SandboxError as error:
                    raise _unplayable(
                        domain, f"the golden task {task.task_id!r} is none of its own: {error}"
                    ) from error
    return golden


async def _unsolvable(domain: DomainSettings, pool: SandboxPool, suite: str) -> tuple[Task, ...]:
    try:
        return _distinct(await pool.unsolvable(suite))
    except SandboxError as error:
        raise _unplayable(domain, f"its suite {suite!r} does not list its unsolvable tasks: {error}") from error


def holdout_of(settings: Settings) -> HoldoutSettings:
    """The holdout, which knows the domain's tasks by their other names too, if they have some.

    Only an environment with settings has such: the others are left to their sandboxes, and not imported here.
    Raises `ConfigurationError` when the environment's files cannot be read.
    """
    domain = settings.domain
    own = settings.branching.environments.get(domain.environment)
    if own is None:
        return settings.holdout
    try:
        return settings.holdout.knowing(other_names_of(domain.environment, own))
    except SandboxError as error:
        raise _unplayable(domain, f"its tasks cannot be read: {error}") from error


async def check_domain(settings: Settings) -> DomainTasks | None:
    """The domain's tasks, None where no domain is set.

    Raises `ConfigurationError` when its environment is not installed or has no such suite or fold, or when Ratchet runs
    and what production recorded is of other environments, and as `check_judging` does.
    """
    domain = settings.domain
    check_judging(settings)
    if not domain.environment:
        return None
    if domain.environment not in registered_environments():
        raise _unplayable(domain, f"it is not installed; there are {', '.join(sorted(registered_environments()))}")
    async with sandbox_pool(domain.environment, settings.branching, size=1) as pool:
        found = await domain_tasks(domain, pool)
        await golden_tasks(found, domain, settings.gate.golden.tasks, pool)
    async with StoreClient(settings.store_url) as store:
        # Where the record role does not run, the learn role looks before each cycle.
        with suppress(StoreError):
            await check_recorded(domain, store)
    return found


async def check_recorded(domain: DomainSettings, store: StoreClient) -> None:
    """Raise `ConfigurationError` when production's episodes are all of other environments than the gate's."""
    rows = (await store.query(ENVIRONMENTS)).to_pylist()
    if rows and domain.environment not in [row["environment"] for row in rows]:
        recorded = ", ".join(f"{row['environment']!r} ({row['episodes']} episodes)" for row in rows)
        raise _unplayable(
            domain,
            f"production's recorded episodes are of {recorded}: a gate would judge what is learned from them by other "
            "tasks. Set domain.environment to that environment, or have the agent name this one as its task's",
        )


def _unplayable(domain: DomainSettings, reason: str) -> ConfigurationError:
    return ConfigurationError(f"no gate can be played in the environment {domain.environment!r}: {reason}.")
