"""The scenario `helpdesk`: an agent of a support desk asks the gateway and says how it went; an expert's chats are
imported.

The agent is on the OpenAI SDK, its tools are an MCP server on the shop's database; sandboxes have copies of both.
"""

from collections.abc import Sequence

from daemon.config import DomainSettings, Settings
from daemon.demo.plan import QUICK_ALPHA, QUICK_UNPROVEN, DemoPlan, practising
from daemon.demo.scenario import REPOSITORY, Command, Scenario, listed, python
from daemon.roles import Role
from learners.settings import Stage
from ratchet_client.events import Task
from ratchet_client.ids import uuid7
from streams.branching.settings import BranchingSettings, RecoverySettings

FOLDER = REPOSITORY / "examples" / "helpdesk"
DOMAIN = DomainSettings(environment="toolbox", suite="helpdesk")


def _works(tasks: Sequence[Task], settings: Settings) -> tuple[Command, ...]:
    return (
        python(
            *("-m", "examples.helpdesk.agent", "--tasks", listed(tasks)),
            *("--base-url", f"{settings.control_url}/v1", "--model", settings.serving.alias),
        ),
    )


def _demonstrates(tasks: Sequence[Task], settings: Settings) -> tuple[Command, ...]:
    file = settings.home.resolve() / f"demonstrations-{uuid7()}.jsonl"
    return (
        python("-m", "examples.helpdesk.expert", "--tasks", listed(tasks), "--output", str(file)),
        python(
            *("-m", "daemon.cli", "import", str(file), "--format", "chat-jsonl", "--json"),
            *("--principal", "helpdesk/clerk", "--agent", "clerk", "--environment", DOMAIN.environment),
            *("--task-field", "task_id", "--outcome-field", "success", "--verifier", "helpdesk"),
            variables=settings.to_environment(),
        ),
    )


def _full(seed: int) -> DemoPlan:
    return DemoPlan(
        seed=seed,
        demonstrations=48,
        first_plays=4,
        plays=8,
        held_out=64,
        out_of_domain=12,
        unseen=40,
        first_cycle=(Stage(objective="imitation", updates=36),),
        practice=practising(tasks=6, samples=4, most_seconds=45, updates=16),
    )


def _quick(seed: int) -> DemoPlan:
    return DemoPlan(
        seed=seed,
        demonstrations=12,
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
    return given.model_copy(
        update={
            "environments": {**given.environments, "toolbox": {"folder": str(FOLDER)}},
            # The untrained model goes on talking: most of what it says here is cut, and one sample is enough.
            "samples": 1,
            "max_tokens": 48,
            "alternatives": 2,
            "branches_per_episode": 2,
            "recovery": RecoverySettings(attempts=2, steps=4),
        }
    )


HELPDESK = Scenario(
    name="helpdesk",
    domain=DOMAIN,
    roles=(Role.RECORD, Role.BRANCH, Role.SERVE, Role.ASSEMBLE),
    captured=True,
    file=FOLDER / "agent.py",
    agent=_works,
    expert=_demonstrates,
    full=_full,
    quick=_quick,
    branching=_branching,
)
