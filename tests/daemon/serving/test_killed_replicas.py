"""One of two servers is killed in each phase of a promotion, while 32 clients ask without a pause: no request fails."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import httpx
import pytest
from fastapi import FastAPI, Request, Response

from daemon.registry.registry import Registry
from tests.builders.asking import asking, change, replicas
from tests.builders.engines import Engine
from tests.daemon.conftest import serve_role
from tests.served import served
from tests.waiting import eventually

CLIENTS = 32
CHAT, PROBE = "v1/chat/completions", "v1/completions"
LOAD, UNLOAD = "v1/load_lora_adapter", "v1/unload_lora_adapter"
# The path of the request at which the server is killed, and whether it has answered that.
PHASES = {
    "before it loads": (LOAD, False),
    "when it has loaded": (LOAD, True),
    "while it is attested": (PROBE, False),
    "at the first call of the new adapter": (CHAT, False),
    "before it unloads": (UNLOAD, False),
    "when it has unloaded": (UNLOAD, True),
}


@asynccontextmanager
async def mortal(engine: Engine, armed: dict[str, str]) -> AsyncIterator[str]:
    """Passes requests on to `engine`, and kills it in the phase that `armed` names, for the adapter that it names."""
    app = FastAPI()
    async with httpx.AsyncClient(base_url=engine.url, timeout=60) as behind:

        @app.api_route("/{path:path}", methods=["GET", "POST"])
        async def forward(path: str, request: Request) -> Response:
            body = await request.body()
            asked = json.loads(body) if body else {}
            path_of, afterwards = PHASES.get(armed.get("phase", ""), ("", False))
            named = asked.get("lora_name") or asked.get("model") or ""
            dies = path == path_of and named.endswith(armed["adapter"])
            if dies and not afterwards:
                engine.kill()
            try:
                answer = await behind.request(
                    request.method, f"/{path}", content=body, headers={"content-type": "application/json"}
                )
            except httpx.TransportError:
                # As a server that is killed: the connection ends without an answer.
                return Response(b"", headers={"content-length": "1"})
            if dies and afterwards:
                engine.kill()
            return Response(answer.content, answer.status_code, media_type=answer.headers.get("content-type"))

        with served(app, lifespan="off") as address:
            yield address


@pytest.mark.nightly
async def test_a_server_that_is_killed_in_any_phase_of_a_promotion_costs_no_request(
    engines: tuple[Engine, Engine], registry: Registry, make_adapter: Callable[..., str]
) -> None:
    before = make_adapter(0)
    armed: dict[str, str] = {}
    async with (
        mortal(engines[1], armed) as address,
        serve_role(registry, engines[0].url, replica_urls=(address,)) as client,
    ):

        async def both_serve() -> bool:
            return not any(replica["reason"] for replica in await replicas(client))

        await eventually(both_serve)
        async with asking(client, CLIENTS) as answered:
            await change(client, "/promote", digest=before)
            for seed, phase in enumerate(PHASES, 1):
                adapter = make_adapter(seed)
                leaves = before if phase.endswith(("unloads", "unloaded")) else adapter
                armed.update(phase=phase, adapter=leaves[:12])
                await change(client, "/promote", digest=adapter)
                await eventually(engines[1].has_ended, phase)
                await answered.more(CLIENTS)
                armed.clear()
                await asyncio.to_thread(engines[1].start)
                await eventually(both_serve, f"it is back after: {phase}")
                await answered.more(CLIENTS)
                await change(client, "/rollback")
                await change(client, "/resume")
    assert answered.failures == []
    assert {name: len(texts) for name, texts in answered.texts.items()} == dict.fromkeys(answered.texts, 1)
