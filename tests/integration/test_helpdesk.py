"""The support desk over a running Ratchet: calls that its gateway captured become episodes, and are tried again."""

import asyncio
import json
import subprocess
import sys
from pathlib import Path

import pytest

from daemon.config import EngineSettings, Settings
from daemon.demo.helpdesk import HELPDESK
from daemon.serving.settings import ServingSettings
from daemon.supervisor import Supervisor
from examples.helpdesk.desk import HERE, tasks
from streams.assembly.settings import AssemblySettings
from streams.branching.settings import BranchingSettings
from streams.runtime.processes import free_port
from streams.store.client import StoreClient
from streams.store.queries.learning import BRANCHING_STATE, JUDGED_EPISODES, POLICY_EPISODES
from streams.store.settings import StoreSettings
from streams.trust.holdout import Split
from tests.builders.helpdesk_model import HelpdeskModel
from tests.served import served
from tests.waiting import eventually

KINDS = ("refund_two", "sent", "move")


@pytest.mark.slow
async def test_what_the_agent_asked_the_gateway_is_trusted_and_a_sandbox_brings_its_states_back(tmp_path: Path) -> None:
    with served(HelpdeskModel().app()) as engine:
        settings = Settings(
            home=tmp_path,
            domain=HELPDESK.domain,
            engine=EngineSettings(url=engine),
            store=StoreSettings(port=free_port()),
            serving=ServingSettings(port=free_port(), reconcile_s=0.2),
            assembly=AssemblySettings(port=free_port(), settle_s=1),
            branching=HELPDESK.branching(BranchingSettings()).model_copy(update={"samples": 0}),
        ).settled()
        train = [task for task in tasks().values() if settings.holdout.split(task["task_id"]) is Split.TRAIN]
        chosen = [next(task for task in train if task["data"]["kind"] == kind) for kind in KINDS]
        steps = sum(len(task["demonstration"]) for task in chosen)
        async with (
            Supervisor(settings, tmp_path, HELPDESK.roles),
            StoreClient(settings.store_url) as store,
        ):
            command = ("-m", "examples.helpdesk.agent", "--base-url", f"{settings.control_url}/v1", "--tasks")
            said = await asyncio.to_thread(
                subprocess.check_output,
                [sys.executable, *command, ",".join(task["task_id"] for task in chosen)],
                cwd=HERE.parents[1],
            )
            played = json.loads(said)
            assert (played["successes"], played["calls"], played["feedback"]) == (len(KINDS), steps, len(KINDS))

            async def is_branched() -> bool:
                judged = (await store.query(JUDGED_EPISODES))["judged"][0].as_py()
                (state,) = (await store.query(BRANCHING_STATE)).to_pylist()
                return bool(judged == len(KINDS) and 0 < state["asked"] == state["answered"])

            await eventually(is_branched, within_s=60)
            (counts,) = (await store.query(POLICY_EPISODES)).to_pylist()
            assert counts == {
                **{"stored": steps, "episodes": len(KINDS), "trusted": len(KINDS)},
                **{"branched": steps, "mismatches": 0},
            }
