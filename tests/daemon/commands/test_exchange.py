"""Conversations from a file to the store and back, over a real broker and a real record role."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from atif import Trajectory

from ratchet_client.messages import Message
from streams.store.client import StoreClient
from tests.daemon.commands.recording import Ratchet, recording
from tests.waiting import eventually

TOOL = {"type": "function", "function": {"name": "list_orders", "parameters": {"type": "object", "properties": {}}}}
NAMED = ("--principal", "ann", "--environment", "shop", "--agent", "helpdesk")
CHAT = ("--format", "chat-jsonl")
OUTCOMES = "SELECT success, count(*) AS count FROM outcomes GROUP BY success ORDER BY success"


def conversation(number: int) -> dict[str, Any]:
    """Two parallel calls, their results in another order, an answer."""
    calls = [
        {"id": f"c{n}", "type": "function", "function": {"name": "list_orders", "arguments": f'{{"page": {n}}}'}}
        for n in (1, 2)
    ]
    return {
        "messages": [
            {"role": "system", "content": "You help."},
            {"role": "user", "content": f"Where is order number {number}?"},
            {"role": "assistant", "reasoning_content": "Look.", "tool_calls": calls},
            {"role": "tool", "tool_call_id": "c2", "content": "[]"},
            {"role": "tool", "tool_call_id": "c1", "content": f"order {number}: sent"},
            {"role": "assistant", "content": f"It is sent, {'really ' * number}so."},
        ],
        "tools": [TOOL],
    }


def text(*numbers: int) -> str:
    return "".join(json.dumps(conversation(number)) + "\n" for number in numbers)


def messages(lines: str) -> list[tuple[Message, ...]]:
    """The conversations, in an order of their own: partitions of a topic are read side by side."""
    said = [tuple(map(Message.model_validate, json.loads(line)["messages"])) for line in lines.splitlines()]
    return sorted(said, key=lambda conversation: conversation[1].text)


def started(ratchet: Ratchet, stdin: int, *arguments: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "daemon.cli", *arguments]
    return subprocess.Popen(
        command,
        cwd=ratchet.home,
        env=ratchet.environment,
        stdin=stdin,
        stderr=subprocess.PIPE,
        text=True,
        # What a shell runs in the background ignores it, and so would the import.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


async def stored(ratchet: Ratchet, sql: str) -> list[dict[str, Any]]:
    await ratchet.caught_up()
    async with StoreClient(ratchet.store_url) as client:
        rows: list[dict[str, Any]] = (await client.query(sql)).to_pylist()
    return rows


@pytest.mark.slow
async def test_conversations_are_imported_trusted_and_exported_as_they_were(tmp_path: Path) -> None:
    (tmp_path / "chats.jsonl").write_text(text(1, 2) + "{broken\n" + text(3))
    importing = ("import", "chats.jsonl", *CHAT, *NAMED, "--success")
    with recording(tmp_path, COLUMNS="240") as ratchet:  # the table folds nothing
        refusal = ratchet(*importing, "--dry-run", status=1)
        assert "chats.jsonl, line 3: it is not JSON" in refusal
        assert await stored(ratchet, OUTCOMES) == []
        for _ in range(2):
            report = json.loads(ratchet(*importing, "--skip-invalid", "--json"))
            assert (report["conversations"], report["steps"], report["successes"], report["skipped"]) == (3, 6, 3, 1)
            assert await stored(ratchet, OUTCOMES) == [{"success": True, "count": 3}]
        assert "imported before is stored once" in ratchet(*importing, "--skip-invalid")
        assert len(await stored(ratchet, "SELECT DISTINCT episode_id FROM trusted")) == 3
        listed = ratchet("transitions")
        assert "list_orders" in listed
        assert "tool_calls" not in listed

        chats = ratchet("export", "--to", "-", *CHAT)
        assert messages(chats) == messages(text(1, 2, 3))
        assert [json.loads(line)["tools"] for line in chats.splitlines()] == [[TOOL]] * 3
        told = json.loads(ratchet("export", "--to", "out.jsonl", "--format", "atif", "--json"))
        assert (told["conversations"], told["withdrawn"], told["left_out"]) == (3, 0, {})
        lines = (tmp_path / "out.jsonl").read_text().splitlines()
        assert [Trajectory.model_validate_json(line).steps[2].tool_calls is not None for line in lines] == [True] * 3

        # What was exported is another principal's when it is imported under that name, and says the same.
        ratchet("import", "out.jsonl", "--format", "atif", "--principal", "bob", "--actor", "policy", "--failed")
        ratchet("import", "-", *CHAT, *NAMED, stdin=text(4))
        assert await stored(ratchet, OUTCOMES) == [{"success": False, "count": 3}, {"success": True, "count": 3}]
        every = ratchet("export", "--to", "-", *CHAT, "--all")
        assert messages(every) == messages(text(1, 2, 3, 1, 2, 3, 4))
        assert messages(ratchet("export", "--to", "-", *CHAT, "--all", "--as-of", str(told["as_of"]))) == messages(
            chats
        )
        ratchet("forget", "--principal", "ann")
        assert ratchet("export", "--to", "-", *CHAT) == ""


@pytest.mark.nightly
async def test_an_import_that_is_interrupted_loses_nothing_and_is_imported_again(tmp_path: Path) -> None:
    with recording(tmp_path) as ratchet:
        reading, writing = os.pipe()
        process = started(ratchet, reading, "import", "-", *CHAT, *NAMED, "--success")
        os.write(writing, text(*range(1, 6)).encode())

        async def has_five() -> bool:
            return await stored(ratchet, OUTCOMES) == [{"success": True, "count": 5}]

        await eventually(has_five, "what was read so far is published")
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
        assert process.returncode != 0
        assert "nothing is stored twice" in said
        os.close(writing)
        ratchet("import", "-", *CHAT, *NAMED, "--success", stdin=text(*range(1, 8)))
        assert await stored(ratchet, OUTCOMES) == [{"success": True, "count": 7}]
        assert len(messages(ratchet("export", "--to", "-", *CHAT))) == 7


@pytest.mark.nightly
async def test_where_principals_have_keys_an_import_is_signed(tmp_path: Path) -> None:
    with recording(tmp_path, RATCHET_ADMISSION__PRINCIPALS=json.dumps({"ann": "key of ann"})) as ratchet:
        ratchet("import", "-", *CHAT, *NAMED, "--success", stdin=text(1))
        assert await stored(ratchet, OUTCOMES) == [{"success": True, "count": 1}]
        named = ("--principal", "eve", *NAMED[2:])
        assert "'eve' has no key" in ratchet("import", "-", *CHAT, *named, status=1, stdin=text(1))


@pytest.mark.nightly
def test_without_a_cluster_an_import_says_what_to_do(tmp_path: Path) -> None:
    with recording(tmp_path) as ratchet:
        ratchet.broker.stop()
        assert "RATCHET_KAFKA__BOOTSTRAP" in ratchet("import", "-", *CHAT, *NAMED, status=1, stdin=text(1))
