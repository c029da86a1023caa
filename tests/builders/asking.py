"""Clients that ask the gateway without a pause, and what they were answered."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx

from tests.waiting import eventually

CHAT: dict[str, Any] = {
    "model": "assistant",
    "messages": [{"role": "user", "content": "open the fridge"}],
    "temperature": 0,
    "max_tokens": 4,
}


@dataclass
class Answered:
    """The replies: how many failed, with what; and the texts that each adapter, as the reply names it, gave."""

    failures: list[str] = field(default_factory=list)
    texts: dict[str, set[str]] = field(default_factory=dict)
    statuses: Counter[int] = field(default_factory=Counter)

    @property
    def count(self) -> int:
        return self.statuses.total()

    async def more(self, count: int) -> None:
        """Wait until there are so many more than now."""
        wanted = self.count + count
        await eventually(lambda: self.count >= wanted, lambda: f"{count} more replies, failures: {self.failures[:3]}")


@asynccontextmanager
async def asking(gateway: httpx.AsyncClient, clients: int = 4) -> AsyncIterator[Answered]:
    """Have `clients` ask meanwhile, each in a conversation of its own; the last of them are answered at the end."""
    answered, stopping = Answered(), asyncio.Event()

    async def ask(number: int) -> None:
        while not stopping.is_set():
            headers = {"x-ratchet-conversation": f"client-{number}"}
            answer = await gateway.post("/v1/chat/completions", json=CHAT, headers=headers)
            answered.statuses[answer.status_code] += 1
            if not answer.is_success:
                answered.failures.append(f"{answer.status_code}: {answer.text}")
                continue
            reply = answer.json()
            text = reply["choices"][0]["message"]["content"]
            answered.texts.setdefault(reply["model"], set()).add(text)

    asked = [asyncio.create_task(ask(number)) for number in range(clients)]
    try:
        yield answered
    finally:
        stopping.set()
        await asyncio.gather(*asked)


async def change(gateway: httpx.AsyncClient, path: str, **body: Any) -> dict[str, Any]:
    """Ask the control API for a change of the champion, which must succeed."""
    answer = await gateway.post(path, json={"reason": "a test", "actor": "anna", **body})
    assert answer.is_success, answer.text
    return dict(answer.json())


async def replicas(gateway: httpx.AsyncClient) -> list[dict[str, Any]]:
    """The inference servers as the status has them."""
    return list((await gateway.get("/status")).json()["replicas"])
