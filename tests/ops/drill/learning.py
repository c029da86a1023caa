"""Drills of the learner, and of the candidates that wait for a person."""

import signal
from collections.abc import Generator
from datetime import UTC, datetime, timedelta, tzinfo
from unittest.mock import patch

from daemon.registry.lifecycle import State
from daemon.registry.registry import Registry
from daemon.registry.task_uses import TaskUses
from evaluation.task_account import TrialBegun
from tests.builders.adapters import add_random_adapter
from tests.ops.drill.drill import drill
from tests.ops.drill.page import Page
from tests.ops.drill.system import System


@drill("RatchetLearnerDead", ("learn", "serve"))
def the_learner_is_killed(system: System, page: Page) -> Generator[None]:
    system.start("learn", "serve")
    yield
    system.kill("learn", number=signal.SIGKILL)
    yield
    page.run("ratchet run --roles learn")


@drill("RatchetLearnerCrashLooping", ("learn", "serve"), looks_back=True)
def the_learner_finds_no_environment(system: System, page: Page) -> Generator[None]:
    system.start("learn", "serve")
    yield
    system.kill("learn")
    for _ in range(8):
        system.begin("learn", also={"DOMAIN__ENVIRONMENT": "no_such_environment"})
        system.wait_for_end("learn")
    yield
    page.says("Correct what the error says")
    system.start("learn")


class _TwoHoursAgo(datetime):
    @classmethod
    def now(cls, tz: tzinfo | None = None) -> "_TwoHoursAgo":
        earlier = datetime.now(tz) - timedelta(hours=2)
        return cls.fromtimestamp(earlier.timestamp(), tz)


@drill("RatchetHoldsWaiting", ("serve",))
def a_candidate_has_waited_for_two_hours(system: System, page: Page) -> Generator[None]:
    registry = Registry(system.home)
    adapter = add_random_adapter(system.base, 1, within=registry, approved=False)
    system.engine.start()
    system.start("serve")
    yield
    with patch("daemon.registry.audit.datetime", _TwoHoursAgo):
        for state in (State.TRAINED, State.EVALUATING, State.HELD):
            registry.enter(adapter, state, "learner", "it repeats one action")
    yield
    assert adapter[:12] in page.run("ratchet status")
    page.run('ratchet reject ADAPTER --reason "it repeats one action"', ADAPTER=adapter)


@drill("RatchetHoldoutSpent", ("serve",))
def the_last_new_task_was_played(system: System, page: Page) -> Generator[None]:
    uses = TaskUses(system.home)
    system.engine.start()
    system.start("serve")
    yield
    uses.begin(begun("trial-1", fresh=0))
    yield
    page.says("Add tasks to the suite")
    # The next trial counts them.
    uses.begin(begun("trial-2", fresh=12))


def begun(trial: str, fresh: int) -> TrialBegun:
    return TrialBegun(
        trial=trial,
        adapter="0" * 64,
        generation=1,
        promotions=0,
        selection=20,
        confirmation=40 + fresh,
        fresh=fresh,
        rotate_after=5,
        at=datetime.now(UTC),
    )
