"""Whole cycles where there is no sandbox: recorded states let a candidate into a canary, and outcomes decide."""

from collections.abc import AsyncIterator
from dataclasses import replace

import httpx
import pytest

from daemon.config import DomainSettings
from daemon.learning.loop import Loop
from daemon.learning.role import Learner
from daemon.registry.lifecycle import State
from daemon.registry.registry import Registry
from daemon.registry.schemas import BASE, CanaryEnd, StatusReport
from daemon.serving.control_client import ControlClient
from daemon.serving.settings import ServingSettings
from evaluation.gates.verdict import Verdict
from evaluation.settings import CanarySettings, CollapseSettings, GateSettings, RecordedSettings
from learners.settings import LearnerSettings, LoraSettings, Stage
from ratchet_client.events import OutcomeEvent, StepEvent
from ratchet_client.messages import assistant
from streams.trust.holdout import Split
from tests.builders.canaried import ask, judged
from tests.builders.episodes import TASKS, episode
from tests.builders.stored import Log, ServedStore
from tests.daemon.conftest import serve_role
from tests.waiting import eventually

LEARNED_FROM, JUDGED_ON = 12, 20
CANARY = CanarySettings(share=0.5, judge_s=0.2)
LEARNER = LearnerSettings(
    stages=(Stage(objective="world_model", updates=40), Stage(objective="imitation", updates=40)),
    lora=LoraSettings(rank=8, alpha=16),
    learning_rate=5e-3,
    threads=1,
    min_new_episodes=LEARNED_FROM,
)
# The tiny base model knows nothing: to it every word is as unlikely as one that is drawn at random. It learns to say
# one, and not to stop.
GATE = GateSettings(
    recorded=RecordedSettings(min_tasks=JUDGED_ON, max_tokens=1),
    collapse=CollapseSettings(max_kl_to_base=12, max_tokens=8),
)


@pytest.fixture
async def client(inference_url: str, registry: Registry, served_store: ServedStore) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the serve role, which gives candidates a canary first."""
    async with serve_role(registry, inference_url, served_store.url, canary=CANARY) as client:
        yield client


@pytest.fixture
async def recorded(loop: Loop, client: httpx.AsyncClient) -> AsyncIterator[Loop]:
    """The loop of a learner that has no sandbox, with a serve role to promote to."""
    parts = {
        "learner": LEARNER,
        "gate": GATE,
        "domain": DomainSettings(recorded=True),
        "serving": ServingSettings(canary=CANARY),
    }
    settings = loop.settings.model_copy(update=parts)
    async with ControlClient(str(client.base_url)) as control:
        yield replace(loop, settings=settings, control=control)


def demonstrated(name: str, task_id: str) -> list[StepEvent | OutcomeEvent]:
    """An expert's episode of one step, a word."""
    step, outcome = episode(name, task_id, steps=1)
    return [step.model_copy(update={"action": assistant("light")}), outcome]


@pytest.mark.nightly
@pytest.mark.parametrize(
    ("solves", "end", "state"),
    [
        ("candidate", CanaryEnd.PROMOTED, State.SERVING),
        ("base", CanaryEnd.ROLLED_BACK, State.ROLLED_BACK),
    ],
)
async def test_recorded_states_begin_a_canary_and_outcomes_end_it(
    solves: str,
    end: CanaryEnd,
    state: State,
    recorded: Loop,
    client: httpx.AsyncClient,
    served_store: ServedStore,
    inference_url: str,
) -> None:
    log, learner = Log(served_store.store), Learner(recorded)
    for split, count in ((Split.TRAIN, LEARNED_FROM), (Split.SELECTION, JUDGED_ON)):
        for number, task_id in enumerate(TASKS[split][:count]):
            log.publish(*demonstrated(f"{split.value}-{number}", task_id))
    for number in range(LEARNED_FROM):
        log.dropped(f"{Split.TRAIN.value}-{number}", 0, "no_sandbox: none is installed for the environment")
    assert await learner.is_due()
    await learner.run_cycle()

    status = await recorded.control.status()
    (cycle,) = status.cycles
    assert cycle.verdict is Verdict.PROMOTE, cycle.reason
    assert [result.gate for result in cycle.gates] == ["recorded", "collapse", "memorisation"]
    figures = cycle.gates[0].figures
    assert (figures["sandbox"], figures["tasks"], figures["wins"]) == (False, JUDGED_ON, JUDGED_ON)
    assert (status.champion, status.served, recorded.registry.state(cycle.adapter)) == (BASE, "base", State.CANARY)
    assert status.canary is not None
    assert not await learner.resume()
    assert not await learner.is_due(), "a canary runs"

    sides = {name: await ask(client, name) for name in (f"episode-{number}" for number in range(60))}
    assert set(sides.values()) > {"base"}
    for name, side in sides.items():
        log.publish(*judged(name, side, (side == "base") == (solves == "base")))

    async def has_ended() -> bool:
        report = StatusReport.model_validate((await client.get("/status")).json())
        return report.canary is not None and report.canary.ended is not None

    await eventually(has_ended, "the canary ends")
    status = await recorded.control.status()
    assert status.canary is not None
    assert status.canary.ended is end
    assert recorded.registry.state(cycle.adapter) is state
    assert status.champion == (cycle.adapter if solves == "candidate" else BASE)
    assert not await Learner(recorded).resume(), "nothing is left to finish"
