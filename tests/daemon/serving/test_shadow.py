"""The shadow: copies of the champion's calls go to the candidate, off their path, and nothing of them gets anywhere."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from daemon.serving.canary import Canary
from daemon.serving.settings import ShadowSettings
from daemon.serving.shadow import Shadow, are_valid, same_action
from evaluation.settings import CanarySettings
from ratchet_client.messages import Message, assistant, call
from tests.builders.calls import TOOL
from tests.daemon.serving.test_canary import begin, named
from tests.daemon.serving.upstream import CHAT, Bench, bench, stream, whole
from tests.waiting import eventually

ALL = ShadowSettings(share=1.0)
WITH_TOOL = CHAT | {"tools": [TOOL]}


def said(text: str) -> list[bytes]:
    return whole(
        200,
        json.dumps(
            {"choices": [{"finish_reason": "stop", "message": {"role": "assistant", "content": text}}]}
        ).encode(),
    )


def called(name: str, arguments: str) -> list[bytes]:
    message = assistant(None, call(name, arguments, "call_1")).model_dump(mode="json", exclude_none=True)
    return whole(200, json.dumps({"choices": [{"finish_reason": "tool_calls", "message": message}]}).encode())


@asynccontextmanager
async def shadowed(
    tmp_path: Path, *answers: list[bytes], settings: ShadowSettings = ALL, works: bool = True, pause_s: float = 0.0
) -> AsyncIterator[tuple[Bench, Shadow]]:
    """A gateway whose canary's candidate gets copies."""
    async with bench(*answers, pause_s=pause_s) as made:
        shadow = Shadow(settings, made.gateway.upstream)
        made.gateway.canary = Canary(CanarySettings(share=0.5), tmp_path, shadow)
        begin(made.gateway.canary)
        working = asyncio.create_task(shadow.run()) if works else None
        yield made, shadow
        if working is not None:
            working.cancel()
            await asyncio.gather(working, return_exceptions=True)


async def ask(made: Bench, body: Any = CHAT, path: str = "/v1/chat/completions", *, candidate: bool = False) -> Any:
    (name,) = named(candidate, count=1)
    return await made.client.post(path, json=body, headers={"x-ratchet-episode": name})


async def compared(shadow: Shadow) -> dict[str, float]:
    await eventually(lambda: shadow.figures.compared + shadow.figures.errors > 0, "the copy is compared")
    return shadow.figures.model_dump()


@pytest.mark.parametrize(("other", "agrees"), [("Hello.", 1), (" Hello.\n", 1), ("Goodbye.", 0)])
async def test_the_agent_gets_the_champions_reply_and_the_candidates_is_only_compared(
    other: str, agrees: int, tmp_path: Path
) -> None:
    async with shadowed(tmp_path, said("Hello."), said(other)) as (made, shadow):
        response = await ask(made)
        assert response.json()["choices"][0]["message"]["content"] == "Hello."
        assert response.headers["x-ratchet-adapter"] == "ratchet-1"
        figures = await compared(shadow)
        assert (figures["copies"], figures["compared"], figures["agreed"], figures["errors"]) == (1, 1, agrees, 0)
        assert figures["champion_s"] > 0
        assert figures["candidate_s"] > 0
        first, copy = (json.loads(body) for _, _, body in made.engine.requests)
        assert copy == first | {"model": "ratchet-9"}
        assert made.call().served == "ratchet-1"
        assert len(made.log.records) == 1  # the copy is not captured


async def test_tool_calls_agree_by_what_they_do_and_are_valid_by_their_schema(tmp_path: Path) -> None:
    async with shadowed(tmp_path, called("open", '{"a": 1, "b": 2}'), called("open", '{"b":2,"a":1}')) as (
        made,
        shadow,
    ):
        await ask(made, WITH_TOOL)
        figures = await compared(shadow)
        assert (figures["agreed"], figures["tool_calls"], figures["valid_tool_calls"]) == (1, 1, 1)
    async with shadowed(tmp_path / "2", called("open", "{}"), called("shut", "{}")) as (made, shadow):
        await ask(made, WITH_TOOL)
        figures = await compared(shadow)
        assert (figures["agreed"], figures["tool_calls"], figures["valid_tool_calls"]) == (0, 1, 0)


async def test_a_stream_is_copied_too(tmp_path: Path) -> None:
    event = b'data: {"choices": [{"index": 0, "delta": {"role": "assistant", "content": "Hello."}}]}\n\n'
    end = b'data: {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}\n\n'
    answer = stream(event, end, b"data: [DONE]\n\n")
    async with shadowed(tmp_path, answer) as (made, shadow):
        response = await ask(made, CHAT | {"stream": True})
        assert "Hello." in response.text
        assert (await compared(shadow))["agreed"] == 1


@pytest.mark.parametrize("failure", [whole(500, b"out of memory"), stream(b"data: {}\n\n", ends=False)])
async def test_a_copy_that_fails_is_counted_and_is_no_error_of_the_canary(failure: list[bytes], tmp_path: Path) -> None:
    async with shadowed(tmp_path, said("Hello."), failure) as (made, shadow):
        assert (await ask(made)).is_success
        assert (await compared(shadow))["errors"] == 1
        assert made.gateway.canary is not None
        assert made.gateway.canary.errors(candidate=True).requests == 0


async def test_calls_of_the_candidate_and_of_the_responses_api_are_not_copied(tmp_path: Path) -> None:
    async with shadowed(tmp_path, said("Hello.")) as (made, shadow):
        await ask(made, candidate=True)
        await ask(made, {"model": "assistant", "input": "Hi."}, "/v1/responses")
        await asyncio.sleep(0.05)
        assert (shadow.figures.copies, len(made.engine.requests)) == (0, 2)


async def test_copies_that_find_the_queue_full_are_dropped_and_counted(tmp_path: Path) -> None:
    settings = ShadowSettings(share=1.0, queue_calls=2)
    async with shadowed(tmp_path, said("Hello."), settings=settings, works=False) as (made, shadow):
        for _ in range(5):
            assert (await ask(made)).is_success
        assert (shadow.figures.dropped, shadow.figures.copies) == (3, 0)
        shadow.clear()
        assert shadow.figures.dropped == 0


async def test_a_call_larger_than_the_queue_is_dropped(tmp_path: Path) -> None:
    settings = ShadowSettings(share=1.0, queue_bytes=100)
    async with shadowed(tmp_path, said("Hello. " * 100), settings=settings, works=False) as (made, shadow):
        assert (await ask(made)).is_success
        assert shadow.figures.copies == 0


async def test_without_a_share_nothing_is_copied(tmp_path: Path) -> None:
    async with shadowed(tmp_path, said("Hello."), settings=ShadowSettings()) as (made, _):
        await ask(made)
        await asyncio.sleep(0.05)
        assert len(made.engine.requests) == 1
        report = made.gateway.canary.report() if made.gateway.canary is not None else None
        assert report is not None
        assert report.shadow is None


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (assistant("Yes."), assistant("Yes. "), True),
        (assistant("Yes."), assistant("No."), False),
        (assistant("Yes."), assistant(None, call("f", "{}", "1")), False),
        (assistant("I look.", call("f", '{"a":1}', "1")), assistant(None, call("f", '{ "a" : 1 }', "2")), True),
        (assistant(None, call("f", "{broken", "1")), assistant(None, call("f", "{}", "1")), False),
    ],
)
def test_the_same_action_is_the_same_calls_or_else_the_same_text(one: Message, other: Message, same: bool) -> None:
    assert same_action(one, other) is same


@pytest.mark.parametrize(
    ("name", "arguments", "valid"),
    [
        ("f", '{"a": 1}', True),
        ("f", '{"a": "x"}', False),
        ("f", "{}", False),
        ("g", '{"a": 1}', False),
        ("f", "[", False),
    ],
)
def test_a_call_is_valid_if_the_tool_was_offered_and_takes_its_arguments(
    name: str, arguments: str, valid: bool
) -> None:
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
    tools: Any = ({"type": "function", "function": {"name": "f", "parameters": schema}},)
    assert are_valid(assistant(None, call(name, arguments, "1")), tools) is valid
