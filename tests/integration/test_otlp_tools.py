"""Real libraries whose model calls tools: what it saw and said is stored, trusted, and requested to be branched."""

import asyncio
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ratchet_client.messages import MESSAGE, MESSAGES, same_conversation
from streams.branch_events import BranchRequest
from streams.kafka.settings import KafkaSettings
from streams.store.client import StoreClient
from tests.builders.episodes import TASK
from tests.integration.otlp_role import otlp_role_of
from tests.integration.recording import ROOT, answers, read_all, recorder_of
from tests.integration.tool_model import Exchange, ToolModel
from tests.served import served
from tests.waiting import eventually

# These instrumentations say nothing of the tools that were offered.
WITHOUT_TOOLS = ("openllmetry-events", "openai-agents-chat")
# They have arguments as objects, so that their spelling is lost, or no ids of answers.
REWRITES_ARGUMENTS = ("openllmetry",)
# One way of each library for each change, and the others at night.
KINDS = [
    *("openinference", "openllmetry-stream", "pydantic-ai", "openai-agents-responses-stream"),
    *(
        pytest.param(kind, marks=pytest.mark.nightly)
        for kind in (
            *("openinference-stream", "openllmetry", "openllmetry-events", "pydantic-ai-stream"),
            *("openai-agents-chat", "openai-agents-chat-stream", "openai-agents-responses"),
        )
    ),
]
NIGHTLY_OVER_KAFKA = pytest.mark.parametrize(
    "cluster", ["tansu", pytest.param("apache-kafka", marks=pytest.mark.nightly)], indirect=True
)


def without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: without_nulls(found) for key, found in value.items() if found is not None}
    return [without_nulls(item) for item in value] if isinstance(value, list | tuple) else value


def assert_nothing_is_lost(request: BranchRequest, exchanges: list[Exchange], library: str) -> None:
    """Each state is what the model was sent, and each action what it replied."""
    assert len(request.steps) == len(exchanges) == 4
    for number, exchange in enumerate(exchanges):
        assert same_conversation(request.state(number), exchange.messages), number
        action = request.steps[number].action
        assert same_conversation([action], [exchange.reply])
        if library not in REWRITES_ARGUMENTS:
            assert action.calls == exchange.reply.calls
        offered: Any = () if library in WITHOUT_TOOLS else exchange.tools
        assert without_nulls(request.tools(number)) == without_nulls(offered)
    assert [len(step.action.calls) for step in request.steps] == [2, 1, 0, 0]
    heard = [[message.role for message in step.observation] for step in request.steps]
    assert heard == [["tool", "tool"], ["tool"], ["user"], []]


@pytest.mark.slow
@NIGHTLY_OVER_KAFKA
@pytest.mark.parametrize("kind", KINDS)
async def test_a_conversation_with_tools_is_stored_trusted_and_branched_as_the_model_had_it(
    kind: str, kafka: KafkaSettings, tmp_path: Path
) -> None:
    model, library = ToolModel(), kind.removesuffix("-stream")
    with served(model.app()) as url, otlp_role_of(kafka, tmp_path) as otlp, recorder_of(kafka, tmp_path) as recorder:
        otlp.start()
        recorder.start()
        command = [sys.executable, "-m", "tests.integration.tool_agents", kind, otlp.url, f"{url}/v1", TASK]
        done = await asyncio.to_thread(
            subprocess.run, command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
        )
        assert done.returncode == 0, done.stderr
        async with StoreClient(recorder.url) as store:
            await eventually(lambda: answers(store))

            async def trusted() -> bool:
                return bool((await store.query("SELECT episode_id FROM trusted")).num_rows)

            await eventually(trusted, "the episode is trusted")
            rows = (await store.query("SELECT * FROM transitions ORDER BY step")).to_pylist()
            status = await store.status()
            await eventually(lambda: len(read_all(kafka, kafka.branches_topic)) == 1)
        assert otlp.end(signal.SIGTERM) == 0
    ((value, _),) = read_all(kafka, kafka.branches_topic)
    request = BranchRequest.model_validate_json(value)
    assert_nothing_is_lost(request, model.exchanges, library)
    assert status.events == {"step": 4, "outcome": 1}
    assert [MESSAGE.validate_json(row["action"]) for row in rows] == [step.action for step in request.steps]
    assert all(
        same_conversation(MESSAGES.validate_json(row["messages"]), exchange.messages)
        for row, exchange in zip(rows, model.exchanges, strict=True)
    )
