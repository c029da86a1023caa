"""The scenario `text-game`: an agent plays TextWorldExpress' *TWC* and publishes its events itself."""

from collections.abc import Sequence

from daemon.config import Settings
from daemon.demo.plan import TWC, DemoPlan
from daemon.demo.scenario import REPOSITORY, Command, Scenario, listed, python
from daemon.roles import Role
from streams.branching.settings import BranchingSettings, RecoverySettings
from streams.events import Task

AGENT = REPOSITORY / "examples" / "textworld_agent.py"


def _plays(role: str, tasks: Sequence[Task], settings: Settings) -> tuple[Command, ...]:
    kafka = settings.kafka
    return (
        python(
            *(str(AGENT), "--role", role, "--tasks", listed(tasks)),
            *("--base-url", settings.control_url, "--model", settings.serving.alias),
            *("--bootstrap", kafka.bootstrap, "--topic", kafka.events_topic),
        ),
    )


def _branching(given: BranchingSettings) -> BranchingSettings:
    # Its tasks are about six actions long, and four lead to as many recoveries as eight (docs/branching.md).
    return given.model_copy(update={"samples": 3, "recovery": RecoverySettings(attempts=8, steps=4)})


TEXT_GAME = Scenario(
    name="text-game",
    domain=TWC,
    roles=(Role.RECORD, Role.BRANCH, Role.SERVE),
    captured=False,
    file=AGENT,
    agent=lambda tasks, settings: _plays("policy", tasks, settings),
    expert=lambda tasks, settings: _plays("expert", tasks, settings),
    full=DemoPlan.full,
    quick=DemoPlan.quick,
    branching=_branching,
)
