"""The agent as a process, over a real broker and a real store. The model is a list of replies."""

import json
import subprocess
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from ratchet_client.events import EVENT, OutcomeEvent, StepEvent
from streams.kafka.broker import EmbeddedBroker
from streams.kafka.settings import KafkaSettings
from streams.kafka.topics import create_topics
from streams.store.writer import Store
from tests.builders.episodes import KAFKA
from tests.builders.published import read
from tests.builders.stored import Log, ServedStore, column

PROGRAM = Path(__file__).parents[2] / "examples" / "tool_calling_agent.py"


def calls(*numbers: int) -> dict[str, Any]:
    functions = [{"name": "find_order", "arguments": json.dumps({"number": number})} for number in numbers]
    listed = [{"id": f"c{n}", "type": "function", "function": function} for n, function in enumerate(functions)]
    return {"role": "assistant", "content": None, "tool_calls": listed}


REPLIES = [calls(17, 99), calls(17), {"role": "assistant", "content": "It was sent on Monday."}]


class ScriptedModel(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        turn = sum(message["role"] == "assistant" for message in body["messages"])
        choice = {"index": 0, "message": REPLIES[turn], "finish_reason": "stop"}
        answer = {"id": "1", "object": "chat.completion", "created": 1, "model": "ratchet-1-abc", "choices": [choice]}
        payload = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(payload)))
        self.end_headers()
        self.wfile.write(payload)

    def log_message(self, *_: object) -> None:
        """Tests are quiet."""


@pytest.mark.slow
def test_an_agent_that_reports_its_tool_calls_by_hand_is_trusted(served_store: ServedStore) -> None:
    model = ThreadingHTTPServer(("127.0.0.1", 0), ScriptedModel)
    Thread(target=model.serve_forever, daemon=True).start()
    with EmbeddedBroker() as broker:
        create_topics(KafkaSettings(bootstrap=broker.bootstrap, partitions=1))
        url = f"http://127.0.0.1:{model.server_port}/v1"
        command = [sys.executable, str(PROGRAM), "--base-url", url, "--bootstrap", broker.bootstrap, "17"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True, cwd=PROGRAM.parents[1])
        events = [EVENT.validate_json(value) for _, value, _ in read(broker.bootstrap, KAFKA.events_topic)]
    model.shutdown()
    assert "1 of 1 answers are right" in done.stdout
    *steps, outcome = events
    assert isinstance(outcome, OutcomeEvent)
    assert (outcome.success, len(steps)) == (True, 3)
    first, second = steps[:2]
    assert isinstance(first, StepEvent)
    assert isinstance(second, StepEvent)
    assert [message.tool_call_id for message in first.observation] == ["c0", "c1"]
    assert second.messages == (*first.messages, first.action, *first.observation)
    assert (first.tools[0]["type"], first.actor.adapter) == ("function", "ratchet-1-abc")
    Log(served_store.store).publish(*events)
    assert trusted(served_store.store) == [first.episode_id]


def trusted(store: Store) -> list[str]:
    return column(store, "SELECT episode_id FROM trusted")
