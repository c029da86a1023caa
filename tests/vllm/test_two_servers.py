"""Ratchet over two vLLM: both get each adapter, and one may go without a request that fails."""

import asyncio
from collections.abc import Callable

from daemon.registry.registry import Registry
from tests.builders.asking import asking, change, replicas
from tests.builders.engines import VllmEngine
from tests.daemon.conftest import serve_role
from tests.vllm.test_one_server import OWN
from tests.waiting import eventually

MakeAdapter = Callable[..., str]
CLIENTS = 4


async def test_changes_reach_both_and_one_may_die_and_come_back(
    first: VllmEngine, second: VllmEngine, registry: Registry, make_adapter: MakeAdapter
) -> None:
    adapters = [make_adapter(seed) for seed in range(3)]
    async with serve_role(registry, first.url, replica_urls=(second.url,), **OWN) as client:

        async def both_serve() -> bool:
            return not any(replica["reason"] for replica in await replicas(client))

        await eventually(both_serve)
        async with asking(client, CLIENTS) as answered:
            for adapter in adapters:
                name = (await change(client, "/promote", digest=adapter))["to_name"]
                assert all(name in replica["models"] for replica in await replicas(client))
            second.kill()
            await answered.more(20)
            await asyncio.to_thread(second.start)
            await eventually(both_serve)
            await answered.more(20)
    # Those in flight at the one that died, which clients try again; nothing else.
    assert len(answered.failures) <= CLIENTS
    assert all(failure.startswith("503") for failure in answered.failures)
    assert {name: len(texts) for name, texts in answered.texts.items()} == dict.fromkeys(answered.texts, 1)
