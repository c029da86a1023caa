"""Rationales of a snapshot, written through a real server of the OpenAI API, or composed where that fails."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.responses import JSONResponse
from pydantic import SecretStr
from starlette.requests import Request

from evaluation.reflecting import reflect
from learners.reflections.records import Reflection, ReflectionFile, read_reflections
from learners.settings import LearnerSettings, ReflectionSettings
from learners.snapshots import Snapshot, write_snapshot
from streams.environments.harness import ChatHarness
from streams.policy.client import PolicyClient
from streams.trust.holdout import HoldoutSettings
from tests.builders.reflected import GOOD, KITCHEN
from tests.builders.trained import trajectory
from tests.served import served

REASONS = ChatHarness(reply="last_line", max_tokens=256, stop=())
MODEL = LearnerSettings(reflection=ReflectionSettings(writer="model"))
WRITTEN = f"{GOOD}\nAction: open fridge"


@dataclass(frozen=True)
class Server:
    """A server that says what `say` makes of the question, and the questions with the keys that came with them."""

    url: str
    asked: list[tuple[str, str, str]]


@asynccontextmanager
async def writer(say: Callable[[str], Any]) -> AsyncIterator[Server]:
    app, asked = FastAPI(), list[tuple[str, str, str]]()

    @app.post("/v1/chat/completions")
    async def chat(request: Request) -> Any:
        body = await request.json()
        question = body["messages"][1]["content"]
        asked.append((body["model"], request.headers.get("authorization", ""), question))
        said = say(question)
        if not isinstance(said, str):
            return said
        message = {"role": "assistant", "content": said}
        return {"model": body["model"], "choices": [{"message": message, "finish_reason": "stop"}]}

    with served(app) as url:
        yield Server(url, asked)


@pytest.fixture
def snapshot(tmp_path: Path) -> Snapshot:
    return write_snapshot([KITCHEN, trajectory(2)], HoldoutSettings(selection=0.0, confirmation=0.0), tmp_path, 0, {})


async def written(
    snapshot: Snapshot,
    base: Path,
    url: str,
    settings: LearnerSettings = MODEL,
    harness: ChatHarness | None = REASONS,
    name: str = "base",
) -> tuple[ReflectionFile, list[Reflection]]:
    async with PolicyClient(url) as policy:
        found = await reflect(snapshot.folder, settings, base, harness, 0, policy, name)
    return found, read_reflections(found.path, found.sha256)


async def test_what_serves_writes_and_what_breaks_a_rule_is_kept_with_the_reason(
    snapshot: Snapshot, tiny_base: Path
) -> None:
    def say(question: str) -> str:
        return WRITTEN if "to be taken:\nopen fridge" in question else f"{GOOD} So says the expert.\nAction: take plate"

    async with writer(say) as server:
        found, (kept, leaking, other) = await written(snapshot, tiny_base, server.url)
    assert found.counts == {"model/conclusion": 1, "model/kept": 1, "model/leak": 1}
    assert found.kept == 1
    assert (kept.text, kept.dropped, kept.action, kept.step) == (GOOD, "", "open fridge", 0)
    assert set(kept.alternatives) == {"sing", "dance", "jump"}
    assert (leaking.dropped, leaking.text) == ("leak", f"{GOOD} So says the expert.")
    assert other.dropped == "conclusion"
    assert {model for model, _, _ in server.asked} == {"base"}


async def test_they_are_written_once_for_a_snapshot(snapshot: Snapshot, tiny_base: Path) -> None:
    async with writer(lambda _: WRITTEN) as server:
        first, _ = await written(snapshot, tiny_base, server.url)
        asked = len(server.asked)
        again, _ = await written(snapshot, tiny_base, server.url)
    assert again == first
    assert len(server.asked) == asked == 3
    assert first.path.parent == snapshot.folder


async def test_a_stronger_model_writes_with_its_key_which_is_in_no_file(snapshot: Snapshot, tiny_base: Path) -> None:
    async with writer(lambda _: WRITTEN) as stronger:
        chosen = ReflectionSettings(
            writer="model", url=f"{stronger.url}/v1", model="large", api_key=SecretStr("sk-much-too-secret")
        )
        found, _ = await written(snapshot, tiny_base, "http://127.0.0.1:9", LearnerSettings(reflection=chosen))
    assert {(model, key) for model, key, _ in stronger.asked} == {("large", "Bearer sk-much-too-secret")}
    assert "sk-much" not in found.path.read_text()
    other = chosen.model_copy(update={"api_key": SecretStr("sk-another-one")})
    again, _ = await written(snapshot, tiny_base, "http://127.0.0.1:9", LearnerSettings(reflection=other))
    assert again == found


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (JSONResponse({"error": {"message": "down"}}, 503), "unavailable"),
        (JSONResponse({"error": {"code": "context_length_exceeded", "message": "long"}}, 400), "too_long"),
        ({"choices": []}, "unavailable"),
        ({"nothing": "of the API"}, "unavailable"),
    ],
)
async def test_what_a_writer_that_fails_did_not_write_is_composed(
    snapshot: Snapshot, tiny_base: Path, answer: Any, reason: str
) -> None:
    async with writer(lambda _: answer) as server:
        found, reflections = await written(snapshot, tiny_base, server.url)
    assert found.counts == {"grounded/kept": 3, f"model/{reason}": 3}
    assert all(bool(each.detail) == (each.writer == "model") for each in reflections)


async def test_a_server_that_never_answers_is_given_up(tmp_path: Path, tiny_base: Path) -> None:
    many = [replace(trajectory(number), task_id=f"t{number}") for number in range(20)]
    snapshot = write_snapshot(many, HoldoutSettings(selection=0.0, confirmation=0.0), tmp_path, 0, {})
    async with writer(lambda _: JSONResponse({}, 503)) as server:
        found, _ = await written(snapshot, tiny_base, server.url)
    assert found.counts == {"grounded/kept": 20, "model/unavailable": 20}
    assert len(server.asked) < 20


async def test_where_nothing_serves_nothing_is_asked(snapshot: Snapshot, tiny_base: Path) -> None:
    async with writer(lambda _: WRITTEN) as server:
        found, _ = await written(snapshot, tiny_base, server.url, name="")
    assert found.counts == {"grounded/kept": 3, "model/unavailable": 3}
    assert not server.asked


async def test_where_a_reply_has_no_place_for_them_none_is_written(snapshot: Snapshot, tiny_base: Path) -> None:
    for harness in (ChatHarness(), None):
        found, _ = await written(snapshot, tiny_base, "http://127.0.0.1:9", LearnerSettings(), harness)
        assert found.counts == {"grounded/no_place": 3}
        assert found.kept == 0


async def test_by_default_they_are_composed_and_few_enough(snapshot: Snapshot, tiny_base: Path) -> None:
    found, _ = await written(snapshot, tiny_base, "http://127.0.0.1:9", LearnerSettings())
    assert found.counts == {"grounded/kept": 3}
    few = LearnerSettings(reflection=ReflectionSettings(states=1, alternatives=2))
    found, (only,) = await written(snapshot, tiny_base, "http://127.0.0.1:9", few)
    assert len(only.alternatives) <= 2
