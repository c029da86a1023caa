"""The agent as a process, over a real broker. The model is a list of replies: they are the input of these tests."""

import ast
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
from kafka import KafkaConsumer

from ratchet_client.events import EVENT, Event, OutcomeEvent, StepEvent, Task
from ratchet_client.messages import assistant
from streams.environments.harness import ChatHarness
from streams.kafka.settings import KafkaSettings
from streams.kafka.topics import end_offsets
from streams.runtime.processes import free_port
from streams.sandboxes.pool import SandboxPool

PROGRAM = Path(__file__).parents[2] / "examples" / "textworld_agent.py"
AGENT = [sys.executable, str(PROGRAM)]
REPLIES = [" take dirty white shirt \nand run", "help", "Sing!", "open washing machine", "inventory"]


class ScriptedModel(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        turn = sum(message["role"] == "assistant" for message in body["messages"])
        reply = {"role": "assistant", "content": REPLIES[turn % len(REPLIES)]}
        answer = {"model": "ratchet-1-abc", "choices": [{"message": reply, "finish_reason": "stop"}]}
        payload = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(payload)))
        self.end_headers()
        self.wfile.write(payload)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: the tests look at the events."""


@pytest.fixture
def model_url() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), ScriptedModel) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def over(kafka: KafkaSettings) -> tuple[str, ...]:
    return ("--bootstrap", kafka.bootstrap, "--topic", kafka.events_topic)


def run_agent(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*AGENT, *arguments], capture_output=True, text=True, timeout=100, check=False)


def published(kafka: KafkaSettings) -> list[tuple[bytes, Event]]:
    consumer = KafkaConsumer(
        kafka.events_topic, bootstrap_servers=kafka.bootstrap, auto_offset_reset="earliest", consumer_timeout_ms=15_000
    )
    wanted = sum(end_offsets(kafka.bootstrap, kafka.events_topic).values())
    records = [next(consumer) for _ in range(wanted)]
    consumer.close()
    return [(record.key, EVENT.validate_json(record.value)) for record in records]


@pytest.mark.slow
async def test_its_messages_equal_the_harnesss_byte_for_byte(kafka: KafkaSettings, model_url: str) -> None:
    ran = run_agent("--tasks", "twc/train/17", *over(kafka), "--base-url", model_url, "--max-steps", "7")
    assert ran.returncode == 0, ran.stderr
    steps = [event for _, event in published(kafka) if isinstance(event, StepEvent)]
    assert [step.step for step in steps] == list(range(7))
    harness = ChatHarness()
    async with SandboxPool("textworld_express") as pool, pool.session() as session:
        messages = harness.opening((await session.reset(steps[0].task)).messages)
        for step in steps:
            assert step.messages == messages
            action = harness.parse(assistant(REPLIES[step.step % len(REPLIES)]))
            answer = await session.step(action)
            assert (step.action, step.observation, step.done) == (action, answer.messages, answer.done)
            messages = harness.extend(messages, action, answer.messages)


@pytest.mark.slow
def test_steps_carry_the_name_that_really_served_and_the_summary_counts_it(
    kafka: KafkaSettings, model_url: str
) -> None:
    ran = run_agent(
        *("--tasks", "twc/train/1,twc/dev/10001", *over(kafka)),
        *("--base-url", model_url, "--max-steps", "3"),
    )
    assert json.loads(ran.stdout) == {
        "episodes": 2,
        "successes": 0,
        "mean_score": 0.0,
        "steps": 6,
        "events": 8,
        "models": {"ratchet-1-abc": 6},
    }
    for key, event in published(kafka):
        assert isinstance(event, StepEvent | OutcomeEvent)
        assert key == event.episode_id.encode()
        if isinstance(event, StepEvent):
            assert event.actor.kind == "policy"
            assert event.actor.adapter == "ratchet-1-abc"


@pytest.mark.slow
def test_the_expert_solves_its_tasks_without_a_model(kafka: KafkaSettings, tmp_path: Path) -> None:
    tasks = tmp_path / "tasks"
    tasks.write_text("twc/train/1\ntwc/train/17\n")
    ran = run_agent("--role", "expert", "--tasks-file", str(tasks), *over(kafka))
    summary = json.loads(ran.stdout)
    assert (summary["episodes"], summary["successes"], summary["models"]) == (2, 2, {})
    events = [event for _, event in published(kafka)]
    assert sum(isinstance(event, OutcomeEvent) and event.success for event in events) == 2
    steps = [event for event in events if isinstance(event, StepEvent)]
    assert {step.actor.kind for step in steps} == {"expert"}
    assert "look around" not in {step.action.content for step in steps}
    assert {step.task for step in steps} >= {Task(environment="textworld_express", task_id="twc/train/17", seed=17)}


def test_a_model_that_does_not_answer_is_a_clear_failure(kafka: KafkaSettings) -> None:
    ran = run_agent("--tasks", "twc/train/1", *over(kafka), "--base-url", f"http://127.0.0.1:{free_port()}")
    assert (ran.returncode, ran.stdout) == (1, "")
    assert ran.stderr.startswith("textworld_agent: the model at http://127.0.0.1:")
    assert len(ran.stderr.splitlines()) == 1


def test_a_task_of_the_reserved_fold_is_wrong_usage() -> None:
    ran = run_agent("--tasks", "twc/test/20001", "--bootstrap", "127.0.0.1:1")
    assert ran.returncode == 2
    assert "fold train or dev" in ran.stderr


def test_an_interrupt_ends_it_cleanly(kafka: KafkaSettings, model_url: str) -> None:
    tasks = ",".join(f"twc/train/{seed}" for seed in range(1000))
    arguments = ["--tasks", tasks, *over(kafka), "--base-url", model_url]
    with subprocess.Popen(
        [*AGENT, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as agent:
        while not sum(end_offsets(kafka.bootstrap, kafka.events_topic).values()):
            assert agent.poll() is None
        os.killpg(agent.pid, signal.SIGINT)
        stdout, stderr = agent.communicate(timeout=60)
    assert (agent.returncode, stdout) == (1, "")
    assert stderr == "textworld_agent: interrupted; the events until now are published\n"
    with pytest.raises(ProcessLookupError):
        os.killpg(agent.pid, 0)


def test_it_imports_nothing_of_ratchet_but_the_schema_of_events() -> None:
    nodes = list(ast.walk(ast.parse(PROGRAM.read_text())))
    imported = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    imported |= {node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)}
    ours = ("ratchet_client", "streams", "learners", "evaluation", "daemon", "examples", "tests")
    assert {name for name in imported if name.partition(".")[0] in ours} == {
        "ratchet_client.events",
        "ratchet_client.messages",
    }
