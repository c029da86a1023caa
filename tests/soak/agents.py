"""The agents of a soak: `python -m tests.soak.agents SETTINGS` has chats with tool calls, and says how they went.

Each chat asks the gateway for a call of a tool, then for an answer, and gives feedback on it. A request that fails is
made again. What was answered and acknowledged is in the ledger before the chat goes on.
"""

import asyncio
import os
import random
import sys
import time
from pathlib import Path
from typing import Any

import httpx

from ratchet_client.headers import episode_headers
from ratchet_client.ids import content_id, uuid7
from ratchet_client.settings import FrozenModel

ENVIRONMENT, SUITE = "faulty_lottery", "lottery"
"""Those of the gates, which are played only where agents are at work. No sandbox brings back the states of a chat."""
_TASKS = 150
TOOL = {
    "type": "function",
    "function": {
        "name": "look_up",
        "description": "Look an order up.",
        "parameters": {
            "type": "object",
            "properties": {"order": {"enum": ["A1", "B2", "C3"]}},
            "required": ["order"],
            "additionalProperties": False,
        },
    },
}
_TIMEOUT_S = 30.0
_PAUSE_S = 0.5
_TRIES = 400

Document = dict[str, Any]


class AgentSettings(FrozenModel):
    """Chats at `base_url`, `seats` at a time with `pause_s` between them, until the file `stop` is there."""

    base_url: str
    model: str
    ledger: Path
    stop: Path
    seats: int = 3
    pause_s: float = 1.0


class Seat:
    """An agent that has one chat after the other."""

    def __init__(self, settings: AgentSettings, http: httpx.AsyncClient) -> None:
        self._settings = settings
        self._http = http

    async def work(self) -> None:
        while not self._settings.stop.exists():
            await self._chat()
            await asyncio.sleep(self._settings.pause_s)

    async def _chat(self) -> None:
        name = uuid7()
        task = f"{SUITE}/train/{random.randrange(_TASKS)}"
        headers = episode_headers(environment=ENVIRONMENT, task=task, principal="soak/agents", agent="soak")
        messages: list[Document] = [
            {"role": "system", "content": "You keep orders."},
            {"role": "user", "content": f"Where is order {name}?"},
        ]
        forced = {"tools": [TOOL], "tool_choice": "required", "parallel_tool_calls": False, "max_tokens": 80}
        asked = await self._ask(messages, headers, forced)
        if asked is None:
            return
        message, _ = asked
        called = [
            {"role": "tool", "tool_call_id": each["id"], "content": f"{name} is on its way."}
            for each in message.get("tool_calls") or ()
        ]
        if called:
            messages = [*messages, message, *called]
            asked = await self._ask(messages, headers, {"tools": [TOOL], "tool_choice": "none", "max_tokens": 6})
            if asked is None:
                return
        await self._judge(asked[1], random.random() < 0.5)

    async def _ask(self, messages: list[Document], headers: dict[str, str], fields: Document) -> tuple[Any, str] | None:
        """The message and its receipt; None where none came at last."""
        body = {"model": self._settings.model, "messages": messages, "temperature": 1, **fields}
        for _ in range(_TRIES):
            try:
                reply = await self._http.post("v1/chat/completions", json=body, headers=headers)
                reply.raise_for_status()
                told = reply.json()
            except (httpx.HTTPError, ValueError):
                self._note("failed")
                if self._settings.stop.exists():
                    return None
                await asyncio.sleep(_PAUSE_S)
                continue
            receipt = reply.headers["x-ratchet-receipt"]
            self._note(f"answer {content_id('call', receipt)} {time.time():.3f} {told['model']}")
            return told["choices"][0]["message"], receipt
        return None

    async def _judge(self, receipt: str, success: bool) -> None:
        """Give feedback until it is acknowledged. It has one id, however often it is sent."""
        identity = uuid7()
        said = {"feedback_id": identity, "receipt": receipt, "verifier": "soak", "success": success}
        for _ in range(_TRIES):
            try:
                reply = await self._http.post("v1/feedback", json=said)
                reply.raise_for_status()
            except httpx.HTTPError:
                self._note("failed")
                await asyncio.sleep(_PAUSE_S)
                continue
            event, call = content_id("feedback", identity), content_id("call", receipt)
            self._note(f"verdict {event} {call}")
            return

    def _note(self, line: str) -> None:
        with self._settings.ledger.open("ab") as file:
            file.write(f"{line}\n".encode())
            file.flush()
            os.fsync(file.fileno())


async def work(settings: AgentSettings) -> None:
    """Have chats until it is time to stop."""
    async with (
        httpx.AsyncClient(base_url=settings.base_url, timeout=_TIMEOUT_S) as http,
        asyncio.TaskGroup() as group,
    ):
        for _ in range(settings.seats):
            group.create_task(Seat(settings, http).work())


if __name__ == "__main__":
    asyncio.run(work(AgentSettings.model_validate_json(sys.argv[1])))
