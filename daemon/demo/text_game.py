"""The scenario `text-game`: an agent plays TextWorldExpress' *TWC* and publishes its events itself."""

from collections.abc import Sequence

from daemon.config import DomainSettings, Settings
from daemon.demo.plan import QUICK_ALPHA, QUICK_UNPROVEN, DemoPlan, practising
from daemon.demo.scenario import REPOSITORY, Command, Scenario, listed, python
from daemon.roles import Role
from learners.settings import Stage
from ratchet_client.events import Task
from streams.branching.settings import BranchingSettings, RecoverySettings

AGENT = REPOSITORY / "examples" / "textworld_agent.py"
TWC = DomainSettings(environment="textworld_express", suite="twc")


def _plays(role: str, tasks: Sequence[Task], settings: Settings) -> tuple[Command, ...]:
    kafka = settings.kafka
    return (
        python(
            *(str(AGENT), "--role", role, "--tasks", listed(tasks)),
            *("--base-url", settings.control_url, "--model", settings.serving.alias),
            *("--bootstrap", kafka.bootstrap, "--topic", kafka.events_topic),
        ),
    )


def _full(seed: int) -> DemoPlan:
    return DemoPlan(
        seed=seed,
        demonstrations=60,
        first_plays=8,
        plays=8,
        held_out=96,
        out_of_domain=16,
        unseen=48,
        first_cycle=(Stage(objective="imitation", updates=60),),
        practice=practising(tasks=6, samples=4, most_seconds=60, updates=20),
    )


def _quick(seed: int) -> DemoPlan:
    return DemoPlan(
        seed=seed,
        demonstrations=8,
        first_plays=4,
        plays=4,
        held_out=12,
        out_of_domain=0,
        unseen=0,
        first_cycle=(Stage(objective="imitation", updates=18),),
        practice=practising(tasks=4, samples=2, most_seconds=60, updates=4),
        alpha=QUICK_ALPHA,
        unproven=QUICK_UNPROVEN,
    )


def _branching(given: BranchingSettings) -> BranchingSettings:
    # Its tasks are about six actions long, and four lead to as many recoveries as eight (docs/branching.md).
    return given.model_copy(update={"samples": 2, "recovery": RecoverySettings(attempts=4, steps=4)})


TEXT_GAME = Scenario(
    name="text-game",
    domain=TWC,
    roles=(Role.RECORD, Role.BRANCH, Role.SERVE),
    captured=False,
    file=AGENT,
    agent=lambda tasks, settings: _plays("policy", tasks, settings),
    expert=lambda tasks, settings: _plays("expert", tasks, settings),
    full=_full,
    quick=_quick,
    branching=_branching,
)
