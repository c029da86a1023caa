"""A canary at the gateway, before an engine that answers what it is told to."""

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from daemon.registry.canaries import RunningCanary
from daemon.registry.schemas import CanaryStart
from daemon.serving.assignment import place
from daemon.serving.canary import FOLDER, PHASES, Canary, CanaryPhase
from evaluation.settings import CanarySettings
from streams.calls.labels import episode_key
from tests.daemon.serving.upstream import CHAT, Bench, bench, stream, whole

SHARE, SALT = 0.5, "salt"
START = CanaryStart(champion="base", share=SHARE, salt=SALT)
RUNNING = RunningCanary("a" * 64, START, datetime(2026, 11, 1, tzinfo=UTC), 7)
REPLY = {"id": "chatcmpl-1", "choices": [{"message": {"role": "assistant", "content": "Hello."}}]}
OK = whole(200, json.dumps(REPLY).encode())
GOES_ON = CHAT | {
    "messages": [*CHAT["messages"], {"role": "assistant", "content": "A"}, {"role": "user", "content": "B"}]
}


def named(candidate: bool, count: int = 3) -> list[str]:
    """Names of episodes on one side of the draw."""
    names = (f"episode-{number}" for number in range(1000))
    return [name for name in names if (place(SALT, episode_key(None, name)) < SHARE) == candidate][:count]


@pytest.fixture
def canary(tmp_path: Path) -> Canary:
    return Canary(CanarySettings(share=SHARE), tmp_path)


@asynccontextmanager
async def gateway(canary: Canary, *answers: list[bytes], begun: bool = True, **settings: Any) -> AsyncIterator[Bench]:
    async with bench(*(answers or (OK,)), **settings) as made:
        made.gateway.canary = canary
        if begun:
            begin(canary)
        yield made


def begin(canary: Canary) -> None:
    canary.prepare(START)
    canary.resume(RUNNING)
    canary.answer("ratchet-9")


async def asked(made: Bench, episode: str | None, body: Any = CHAT, path: str = "/v1/chat/completions") -> str:
    """The adapter that answers."""
    headers = {} if episode is None else {"x-ratchet-episode": episode}
    response = await made.client.post(path, json=body, headers=headers)
    assert response.is_success, response.text
    answered = response.headers["x-ratchet-adapter"]
    assert json.loads(made.engine.requests[-1][2])["model"] == answered
    return str(answered)


async def test_the_candidate_answers_its_episodes_and_the_champion_all_others(canary: Canary) -> None:
    async with gateway(canary) as made:
        assert {await asked(made, name) for name in named(candidate=True)} == {"ratchet-9"}
        assert {await asked(made, name) for name in named(candidate=False)} == {"ratchet-1"}


async def test_an_episode_goes_on_where_it_began_also_after_a_restart(canary: Canary, tmp_path: Path) -> None:
    ours, theirs = named(candidate=True, count=2)
    async with gateway(canary) as made:
        assert await asked(made, ours) == "ratchet-9"
        assert [await asked(made, ours, GOES_ON) for _ in range(3)] == ["ratchet-9"] * 3
        # It is in the share, but has a reply when it is first seen: it began before.
        assert await asked(made, theirs, GOES_ON) == "ratchet-1"
        assert await asked(made, theirs) == "ratchet-1"
    restarted = Canary(CanarySettings(share=0.01), tmp_path)  # the share is that of the canary that runs
    async with gateway(restarted, begun=False) as made:
        restarted.resume(RUNNING)
        waits = await made.client.post(
            "/v1/chat/completions", json=GOES_ON, headers={"x-ratchet-episode": ours}
        )  # not the champion, in the middle of it
        assert (waits.status_code, waits.headers["retry-after"]) == (503, "2")
        assert await asked(made, theirs, GOES_ON) == "ratchet-1"
        restarted.answer("ratchet-12")
        assert await asked(made, ours, GOES_ON) == "ratchet-12"


async def test_an_episode_without_a_history_that_was_seen_before_the_canary_stays_with_the_champion(
    canary: Canary,
) -> None:
    before, after = named(candidate=True, count=2)
    async with gateway(canary, begun=False) as made:
        assert await asked(made, before) == "ratchet-1"
        begin(canary)
        assert await asked(made, before) == "ratchet-1"
        assert await asked(made, after) == "ratchet-9"


async def test_after_its_end_the_champion_answers_also_in_the_middle_of_episodes(
    canary: Canary, tmp_path: Path
) -> None:
    (name,) = named(candidate=True, count=1)
    async with gateway(canary) as made:
        assert await asked(made, name) == "ratchet-9"
        assert canary.end() == "ratchet-9"
        assert await asked(made, name, GOES_ON) == "ratchet-1"
        assert list((tmp_path / FOLDER).iterdir()) == []


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/chat/completions", CHAT),
        ("/v1/messages", {"model": "assistant", "messages": [{"role": "user", "content": "Hi."}]}),
        ("/v1/completions", {"model": "assistant", "prompt": "Hi"}),
        ("/v1/responses", {"model": "assistant", "input": "Hi"}),
    ],
)
async def test_every_face_has_the_canary_with_or_without_capture(
    path: str, body: dict[str, Any], tmp_path: Path
) -> None:
    for number, headers in enumerate(({}, {"x-ratchet-capture": "off"})):
        canary = Canary(CanarySettings(share=SHARE), tmp_path / str(number))
        async with gateway(canary) as made:
            seen = set()
            for name in (*named(candidate=True), *named(candidate=False)):
                response = await made.client.post(path, json=body, headers={"x-ratchet-episode": name} | headers)
                seen.add(response.headers["x-ratchet-adapter"])
            assert seen == {"ratchet-1", "ratchet-9"}


async def test_a_response_of_the_candidate_is_continued_by_it_after_a_restart(tmp_path: Path) -> None:
    reply = whole(200, json.dumps({"id": "resp_1", "object": "response", "output": []}).encode())
    settings = CanarySettings(share=0.99)
    start = CanaryStart(champion="base", share=0.99, salt=SALT)
    running = RunningCanary("a" * 64, start, RUNNING.began, 7)
    canary = Canary(settings, tmp_path)
    async with gateway(canary, reply, begun=False) as made:
        canary.prepare(start)
        canary.resume(running)
        canary.answer("ratchet-9")
        assert await asked(made, None, {"model": "assistant", "input": "Hi"}, "/v1/responses") == "ratchet-9"
    restarted = Canary(settings, tmp_path)
    async with gateway(restarted, reply, begun=False) as made:
        restarted.resume(running)
        restarted.answer("ratchet-12")
        more = {"model": "assistant", "input": "And?", "previous_response_id": "resp_1"}
        assert await asked(made, None, more, "/v1/responses") == "ratchet-12"
        unknown = more | {"previous_response_id": "resp_0"}
        assert await asked(made, None, unknown, "/v1/responses") == "ratchet-1"


FAILED = whole(500, b'{"error": {"message": "out of memory"}}')
CUT = stream(b'data: {"choices": []}\n\n', ends=False)
ERROR_EVENT = stream(b'data: {"choices": []}\n\n', b'data: {"error": {"message": "out of memory"}}\n\n')
REFUSED = whole(400, b'{"error": {"message": "temperature must be positive"}}')
LOST = whole(404, b'{"error": {"message": "The model `ratchet-9` does not exist."}}')


@pytest.mark.parametrize(
    ("answer", "errors"), [(OK, 0), (FAILED, 1), (CUT, 1), (ERROR_EVENT, 1), (REFUSED, 0), (LOST, 0)]
)
async def test_errors_are_those_of_the_inference_server_and_not_of_the_request(
    answer: list[bytes], errors: int, canary: Canary
) -> None:
    (name,) = named(candidate=True, count=1)
    async with gateway(canary, answer) as made:
        await made.client.post("/v1/chat/completions", json=CHAT, headers={"x-ratchet-episode": name})
        assert canary.errors(candidate=True).errors == errors
        assert canary.errors(candidate=False).requests == 0


async def test_errors_of_the_candidate_alone_are_told_at_once(canary: Canary) -> None:
    theirs, ours = named(candidate=False, count=1)[0], named(candidate=True, count=1)[0]
    async with gateway(canary, *[OK] * 60, *[FAILED] * 5, OK) as made:
        for _ in range(60):
            await asked(made, theirs)
        for _ in range(5):
            assert not canary.failing.is_set()
            await made.client.post("/v1/chat/completions", json=CHAT, headers={"x-ratchet-episode": ours})
        assert canary.failing.is_set()
        assert canary.error_reason() == (
            "the inference server failed on 5 of 5 requests to the candidate, and on 0 of 60 to the champion"
        )


async def test_errors_of_both_sides_take_nothing_back(canary: Canary) -> None:
    async with gateway(canary, FAILED) as made:
        for name in (*named(candidate=True, count=8), *named(candidate=False, count=8)):
            await made.client.post("/v1/chat/completions", json=CHAT, headers={"x-ratchet-episode": name})
        assert canary.errors(candidate=True).errors == canary.errors(candidate=False).errors == 8
        assert not canary.failing.is_set()


async def test_without_a_canary_nothing_is_remembered_of_calls(tmp_path: Path) -> None:
    canary = Canary(CanarySettings(), tmp_path)
    async with gateway(canary, begun=False) as made:
        await asked(made, "episode-1")
        assert not canary.looks
        assert canary.report() is None
        assert not (tmp_path / FOLDER).exists()


def test_only_the_phases_of_the_table_follow_on_each_other(canary: Canary) -> None:
    moves: dict[CanaryPhase, Callable[[], object]] = {
        CanaryPhase.LOADING: lambda: canary._become(CanaryPhase.LOADING),
        CanaryPhase.ANSWERING: lambda: canary._become(CanaryPhase.ANSWERING),
        CanaryPhase.OFF: lambda: canary._become(CanaryPhase.OFF),
    }
    for phase, allowed in PHASES.items():
        for target, move in moves.items():
            canary.phase = phase
            if target in allowed:
                move()
                assert canary.phase is target
            else:
                with pytest.raises(ValueError, match="cannot become"):
                    move()


def test_a_report_says_what_is_seen_so_far(canary: Canary) -> None:
    begin(canary)
    canary.count(candidate=True, failed=False)
    canary.count(candidate=False, failed=True)
    report = canary.report()
    assert report is not None
    assert (report.adapter, report.share, report.ended) == ("a" * 64, SHARE, None)
    assert (report.candidate_requests, report.candidate_errors) == (1, 0)
    assert (report.champion_requests, report.champion_errors) == (1, 1)


def test_a_canary_ends_also_where_its_file_cannot_be_removed(canary: Canary, tmp_path: Path) -> None:
    begin(canary)
    file = tmp_path / FOLDER / f"{SALT}.episodes"
    file.unlink()
    file.mkdir()
    assert canary.end() == "ratchet-9"
    assert (canary.phase, canary.running, canary.end()) == (CanaryPhase.OFF, None, None)
