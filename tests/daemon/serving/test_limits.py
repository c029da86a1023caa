"""Limits of each principal at the gateway: what is over them is refused and says when to come back, all else passes."""

import asyncio
import gzip
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI
from prometheus_client import CollectorRegistry, Counter
from structlog.testing import capture_logs

from daemon.serving.feedback import FeedbackIntake
from daemon.serving.gateway import Gateway
from daemon.serving.limits import GatewayLimits, LimitCounts
from daemon.serving.settings import ServingSettings
from streams.access.access import Access
from streams.access.limits import Limiter
from streams.access.settings import AccessSettings, LimitSettings
from streams.access.token_file import TokenFile
from streams.access.tokens import INTERNAL_VARIABLE, AccessRole
from tests.daemon.serving.upstream import CHAT, TOPIC, Bench, Log, bench, stream, whole
from tests.waiting import eventually

CALL = "/v1/chat/completions"
USED = whole(200, b'{"usage": {"prompt_tokens": 70, "completion_tokens": 50}}')


@dataclass
class Limited:
    """A gateway with limits, whose time stands until `now` is changed."""

    client: httpx.AsyncClient
    counts: LimitCounts
    limits: GatewayLimits
    bench: Bench
    now: float = 1000.0

    def refused(self, reason: str) -> float:
        return float(self.counts.refused.labels(reason=reason)._value.get())

    async def ask(self, token: str = "", path: str = CALL, **body: object) -> httpx.Response:
        headers = {"authorization": f"Bearer {token}"} if token else {}
        return await self.client.post(path, json=CHAT | body, headers=headers)


@asynccontextmanager
async def limited(
    home: Path, *answers: list[bytes], pause_s: float = 0.0, most: int = 10_000, **limits: object
) -> AsyncIterator[Limited]:
    serving = ServingSettings(max_request_bytes=most)
    async with bench(*answers, pause_s=pause_s) as parts:
        settings = AccessSettings(limits=LimitSettings.model_validate(limits))
        access, counts = Access(settings=settings, home=home), LimitCounts()
        own = GatewayLimits(access.limits, most, counts)
        intake = FeedbackIntake(serving, TOPIC, Log())
        counter = Counter("requests", "Requests.", ["status"], registry=CollectorRegistry())
        gateway = Gateway(
            parts.alias, parts.gateway.upstream, counter, serving, feedback=intake, access=access, limits=own
        )
        app = FastAPI()
        app.router.routes += gateway.routes()
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            found = Limited(client, counts, own, parts)
            own.limiter = Limiter(own.settings, lambda: found.now)
            yield found
        intake.close()


async def test_without_settings_nothing_is_limited(tmp_path: Path) -> None:
    async with limited(tmp_path, USED) as gateway:
        answers = await asyncio.gather(*(gateway.ask() for _ in range(50)))
        assert {answer.status_code for answer in answers} == {200}


async def test_requests_over_the_rate_are_refused_until_the_time_that_the_refusal_says(tmp_path: Path) -> None:
    async with limited(tmp_path, USED, requests_per_minute=2) as gateway:
        assert [(await gateway.ask()).status_code for _ in range(3)] == [200, 200, 429]
        refused = await gateway.ask()
        assert refused.json()["error"]["type"] == "rate_limit_error"
        assert refused.json()["error"]["code"] == "rate_limit_exceeded"
        assert "2 requests per minute" in refused.json()["error"]["message"]
        assert (await gateway.ask(path="/v1/messages")).json()["error"]["type"] == "rate_limit_error"
        assert len(gateway.bench.engine.requests) == 2, "what is refused does not reach the inference server"
        wait_s = int(refused.headers["retry-after"])
        gateway.now += wait_s - 1
        assert (await gateway.ask()).status_code == 429
        gateway.now += 1
        assert (await gateway.ask()).status_code == 200
        assert gateway.refused("requests") == 4


async def test_each_principal_has_limits_of_its_own_and_the_log_says_whose_token_was_refused(tmp_path: Path) -> None:
    file = TokenFile(tmp_path)
    ann, ben = (file.issue(name, [AccessRole.ASK]) for name in ("ann", "ben"))
    second = file.issue("ann", [AccessRole.ASK])
    principals = {"ben": {"requests_per_minute": 0}}
    async with limited(tmp_path, USED, requests_per_minute=1, principals=principals) as gateway:
        assert (await gateway.ask(ann)).status_code == 200
        with capture_logs() as logs:
            assert (await gateway.ask(second)).status_code == 429, "another token of the same principal"
        assert [(await gateway.ask(ben)).status_code for _ in range(3)] == [200, 200, 200]
        (said,) = [line for line in logs if line.get("limit") == "requests"]
        kept = [token.sha256 for token in file.read() if token.name == "ann"][1]
        assert (said["principal"], said["token"]) == ("ann", kept[:12])
        assert second not in str(logs)


async def test_tokens_are_those_that_the_inference_server_counts_and_a_debt_is_paid_first(tmp_path: Path) -> None:
    async with limited(tmp_path, USED, tokens_per_minute=60) as gateway:
        assert (await gateway.ask()).status_code == 200  # 120 of 60: its cost is known when it is over
        refused = await gateway.ask()
        assert (refused.status_code, refused.headers["retry-after"]) == (429, "61")
        gateway.now += 61
        assert (await gateway.ask()).status_code == 200
        assert gateway.refused("tokens") == 1


async def test_a_streamed_reply_without_a_count_is_estimated(tmp_path: Path) -> None:
    parts = [b'data: {"choices": []}\n\n'] * 30
    async with limited(tmp_path, stream(*parts), tokens_per_minute=20) as gateway:
        assert (await gateway.ask(stream=True)).status_code == 200
        assert (await gateway.ask(stream=True)).status_code == 429


async def test_requests_at_once_are_limited_and_one_that_ends_or_whose_client_leaves_makes_room(tmp_path: Path) -> None:
    async with limited(tmp_path, stream(*[b"data: x\n\n"] * 50), pause_s=0.05, in_flight=1) as gateway:
        first = asyncio.create_task(gateway.ask(stream=True))
        await eventually(lambda: gateway.bench.engine.requests, "the first is at the inference server")
        refused = await gateway.ask()
        assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        gateway.bench.engine.answers[:] = [USED]
        assert (await gateway.ask()).status_code == 200
        assert gateway.refused("in_flight") == 1


@pytest.mark.parametrize("path", [CALL, "/v1/responses/r1/cancel"])
async def test_a_request_that_is_too_large_for_its_principal_is_refused(tmp_path: Path, path: str) -> None:
    ann = TokenFile(tmp_path).issue("ann", [AccessRole.ASK])
    ben = TokenFile(tmp_path).issue("ben", [AccessRole.ASK])
    principals = {"ann": {"request_bytes": 0}}
    async with limited(tmp_path, USED, most=4000, request_bytes=1000, principals=principals) as gateway:
        assert (await gateway.ask(ann, path, user="x" * 2000)).status_code == 200
        refused = await gateway.ask(ben, path, user="x" * 2000)
        assert (refused.status_code, refused.json()["error"]["code"]) == (413, "request_too_large")
        squeezed = gzip.compress(b"x" * 2000)
        headers = {"authorization": f"Bearer {ben}", "content-encoding": "gzip"}
        assert (await gateway.client.post(path, content=squeezed, headers=headers)).status_code == 413
        assert (await gateway.ask(ann, path, user="x" * 5000)).status_code == 413, "never more than serving allows"
        assert gateway.refused("size") == 3


async def test_an_error_of_the_limits_lets_requests_pass_and_is_counted(tmp_path: Path) -> None:
    async with limited(tmp_path, USED, requests_per_minute=1) as gateway:

        def broken() -> float:
            raise OSError("no clock")

        gateway.limits.limiter = Limiter(gateway.limits.settings, broken)
        assert [(await gateway.ask()).status_code for _ in range(3)] == [200, 200, 200]
        assert gateway.counts.failed._value.get() == 3


async def test_ratchets_own_processes_have_no_limits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(INTERNAL_VARIABLE, "ratchet_of_this_run")
    async with limited(tmp_path, USED, requests_per_minute=1) as gateway:
        assert [(await gateway.ask("ratchet_of_this_run")).status_code for _ in range(3)] == [200, 200, 200]
        assert [(await gateway.ask()).status_code for _ in range(2)] == [200, 429]
